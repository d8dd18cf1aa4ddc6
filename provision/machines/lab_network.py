"""Addresses of a lab: its network, its machines' addresses, their routes and resolv.conf."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from provision.model.errors import MachinesError

SUPERNET = IPv4Network("10.77.0.0/16")
FIRST_HOST = 11
VIP_HOST = 100
LAST_HOST = 254


def free_subnet(
    identity: str, taken: Iterable[IPv4Network], supernet: IPv4Network = SUPERNET
) -> IPv4Network:
    """Choose a /24 of the labs' network: where it starts depends on the lab only, then the next free.

    Networks larger than that do not count: they are a VPN's or an office's, and the more
    specific route of the lab's bridge goes before them.

    Raises:
        MachinesError: none is free.
    """
    subnets = list(supernet.subnets(new_prefix=24))
    in_the_way = [n for n in taken if n.prefixlen >= supernet.prefixlen and n.overlaps(supernet)]
    start = int(hashlib.sha256(identity.encode()).hexdigest(), 16) % len(subnets)
    for subnet in subnets[start:] + subnets[:start]:
        if not any(subnet.overlaps(other) for other in in_the_way):
            return subnet
    raise MachinesError(
        f"there is no free network for the lab: all of {supernet} is in use",
        hint="remove labs that are not needed: clusterctl machines down INVENTORY",
    )


def assign(
    subnet: IPv4Network, names: Iterable[str], known: Mapping[str, IPv4Address]
) -> dict[str, IPv4Address]:
    """Give each machine its address: the one it has, else its place in the order, else a free one.

    `known` are those of machines that exist, also of those that the inventory no longer names.

    Raises:
        MachinesError: more machines than addresses.
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
    """Give a machine a hardware address for life, locally administered.

    With a new one at each start, as the engines choose, its neighbours' ARP caches send to the
    old one for up to half a minute.
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
    """Make a machine's resolv.conf from the operator's: the first with a server they can reach.

    A server on the loopback (systemd-resolved, dnsmasq) is the operator's own; in a machine, and
    in the pods that inherit the file, that address is somebody else. Public servers are the
    last resort, the same that the engines use.
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
    """Read the operator's resolv.conf, and the one with systemd-resolved's own servers."""
    paths = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
    return [path.read_text() for path in paths if path.exists()]
