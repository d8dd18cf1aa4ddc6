"""Addresses of a lab: its network, its machines' addresses, their routes and resolv.conf."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from provision.machines import inotify
from provision.machines.container_engine import Engine, Network
from provision.machines.lab_names import INOTIFY_LABEL, LAB_LABEL
from provision.model.commands import clusterctl
from provision.model.errors import MachinesError

SUPERNET = IPv4Network("10.77.0.0/16")
FIRST_HOST = 11
VIP_HOST = 100
LAST_HOST = 254


def free_subnet(
    identity: str, taken: Iterable[IPv4Network], supernet: IPv4Network = SUPERNET
) -> IPv4Network:
    """Choose a free /24 of the labs' network. The search starts at a /24 that depends on the lab.

    Taken networks that are larger than the labs' network do not count. They belong to a VPN or an
    office, and the lab's bridge has a more specific route, which takes precedence.

    Raises:
        MachinesError: no /24 is free.
    """
    subnets = list(supernet.subnets(new_prefix=24))
    in_the_way = [n for n in taken if n.prefixlen >= supernet.prefixlen and n.overlaps(supernet)]
    start = int(hashlib.sha256(identity.encode()).hexdigest(), 16) % len(subnets)
    for subnet in subnets[start:] + subnets[:start]:
        if not any(subnet.overlaps(other) for other in in_the_way):
            return subnet
    raise MachinesError(
        f"there is no free network for the lab: all of {supernet} is in use",
        hint=f"remove labs that are not needed: {clusterctl('machines', 'down', 'INVENTORY')}",
    )


def assign(
    subnet: IPv4Network, names: Iterable[str], known: Mapping[str, IPv4Address]
) -> dict[str, IPv4Address]:
    """Choose each machine's address: the one it has, else that of its position, else a free one.

    Args:
        known: name -> address of machines that exist, also of machines that the inventory no
            longer has.

    Raises:
        MachinesError: there are more machines than addresses.
    """
    taken = set(known.values())
    pool = [subnet[i] for i in range(FIRST_HOST, LAST_HOST + 1) if i != VIP_HOST]
    result = {}
    for place, name in enumerate(names):
        if name in known:
            result[name] = known[name]
            continue
        free = next((a for a in pool[place:] + pool[:place] if a not in taken), None)
        if free is None:
            raise MachinesError(
                f"the lab has {len(pool)} addresses, and {name} needs one more",
                hint=f"use {len(pool)} machines at most",
            )
        taken.add(free)
        result[name] = free
    return result


def mac(address: IPv4Address) -> str:
    """Give a machine's hardware address, locally administered. It never changes.

    The engines would choose a new one at each start. The neighbours' ARP caches would then send to
    the old one for up to half a minute.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x00, *address.packed))


def routes(proc_net_route: str) -> tuple[IPv4Network, ...]:
    """Read the destinations in /proc/net/route, without the default route."""
    found = []
    for line in proc_net_route.splitlines()[1:]:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            found.append(IPv4Network((destination, mask.bit_count())))
    return tuple(found)


def resolv_conf(*candidates: str) -> str:
    """Make the machines' resolv.conf from the first candidate with a server that they can reach.

    They cannot reach a server on the loopback (systemd-resolved, dnsmasq): the operator's machine
    runs it, but in a machine, and in the pods that inherit the file, the loopback is their own.
    If no candidate has another server, the file has the public servers that the engines also use.

    Args:
        candidates: contents of the operator's resolv.conf files, in order of preference.
    """
    for text in candidates:
        lines = [line.split() for line in text.splitlines()]
        servers = [f[1] for f in lines if len(f) > 1 and f[0] == "nameserver"]
        if reachable := [s for s in servers if not s.startswith(("127.", "::1"))]:
            return "".join(f"nameserver {server}\n" for server in reachable)
    return "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def read_routes() -> tuple[IPv4Network, ...]:
    return routes(Path("/proc/net/route").read_text())


def read_resolvers() -> list[str]:
    """Read the operator's resolv.conf, and the file with systemd-resolved's upstream servers."""
    paths = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
    return [path.read_text() for path in paths if path.exists()]


def subnet_of(
    identity: str, networks: Sequence[Network], chosen: IPv4Network | None
) -> IPv4Network:
    """Give the network of a lab: the one it has, else the chosen one, else a free one.

    Args:
        networks: all networks of the engine.
        chosen: the network of a new lab; None: any free one.
    """
    for network in networks:
        if network.name == identity:
            return network.subnets[0]
    if chosen is not None:
        return chosen
    return free_subnet(identity, [*(s for n in networks for s in n.subnets), *read_routes()])


def ensure(engine: Engine, identity: str, chosen: IPv4Network | None) -> None:
    """Make the network of a lab if the engine does not have it.

    Raises:
        MachinesError: no network is free, or the engine fails.
    """
    networks = engine.networks()
    if any(network.name == identity for network in networks):
        return
    labs = [n.labels[INOTIFY_LABEL] for n in networks if INOTIFY_LABEL in n.labels]
    before = min([inotify.instances(), *map(int, labs)])
    labels = {LAB_LABEL: identity, INOTIFY_LABEL: str(before)}
    subnet = subnet_of(identity, networks, chosen)
    try:
        engine.create_network(identity, subnet, labels)
    except MachinesError:
        # A lab of another user may have taken the subnet: the lock works for one user only.
        free = subnet_of(identity, engine.networks(), chosen)
        if free == subnet:
            raise
        engine.create_network(identity, free, labels)
