"""Preflight's checks of one machine by itself. Pure.

A check is a function of a `View` that yields a finding for each fault. To add one: write the
function and name it in `CHECKS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network

from provision.desired.catalog import COMPONENTS
from provision.desired.model import Component, Listens, Protocol
from provision.inventory.rules import NODE_NAME, is_hostname, without_login
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl, shell
from provision.model.distribution import (
    EPEL,
    NFT_FOR_KUBERNETES,
    Bird,
    Family,
    Proof,
    Version,
)
from provision.model.errors import Finding
from provision.model.observed import Port as Held
from provision.observe.script import HAPROXY_CONNECTS, KEEPALIVED_CONNECTS
from provision.plan.packet_filter import needed, opening, stops
from provision.plan.place_checks import room, usable
from provision.plan.view import View

SYSTEMD = 245  # of Ubuntu 20.04
# In its mode nftables, kube-proxy refuses older kernels. Their nft is also too old.
KERNEL = (5, 13)
# Source: kubeadm's own preflight: 1700 MB and two CPUs for a control plane.
MASTER_MEMORY, WORKER_MEMORY, MASTER_CPUS = 1700, 700, 2  # MiB
# Certificates are backdated by five minutes. etcd warns if the clocks differ by a second or more.
CLOCK_WRONG, CLOCK_OFF = 120.0, 30.0  # seconds

EVERYWHERE = "0.0.0.0"  # noqa: S104 - compared with, not listened on
LOOPBACK = "127.0.0.1"
_ANYWHERE = frozenset({EVERYWHERE, "*", "::"})


def _other_cluster(view: View) -> Iterator[Finding]:
    cluster, seen = view.cluster, view.seen
    if seen.cluster and not view.joined:
        yield view.finding(
            f"belongs to the cluster {seen.cluster}, not to {cluster.name}",
            f"take it out of this inventory, or first remove {seen.cluster}, with the inventory of that "
            f"cluster: {clusterctl('down', 'INVENTORY')}",
        )
    elif seen.fingerprint and view.fingerprint and seen.fingerprint != view.fingerprint:
        yield view.finding(
            f"belongs to another cluster of the name {seen.cluster}: that one's authority is "
            f"{seen.fingerprint[:12]}, this one's is {view.fingerprint[:12]}",
            "give this cluster another name, or take the other cluster down first",
        )


def _lost_roles(view: View) -> Iterator[Finding]:
    machine = view.machine
    roles = {"etcd": (machine.has_etcd, "an etcd member"), "kubelet": (machine.is_node, "a node")}
    for component, (wanted, what) in roles.items():
        if component in view.seen.record and not wanted:
            yield view.finding(
                f"is {what} of the cluster, but the inventory no longer gives it that role",
                "put the role back and run "
                f"{clusterctl('node', 'remove', view.cluster.inventory, machine.name)}; then add the machine again with its new roles",
            )


def _other_installations(view: View) -> Iterator[Finding]:
    for sign in view.host.foreign:
        if sign.tool == "docker":
            yield view.finding(
                f"Docker is installed ({sign.where})",
                "Docker may stay; Kubernetes does not see its containers",
                fatal=False,
            )
        else:
            yield view.finding(
                f"has an installation of {sign.tool} that clusterctl did not make ({sign.where})",
                f"remove it with the tools of {sign.tool}, or use a machine without it",
            )


def _identity(view: View) -> Iterator[Finding]:
    machine, host = view.machine, view.host
    if host.hostname != machine.name:
        # A name in capitals, for example, is a hostname, but no name of a Node.
        others = {"localhost", *(m.name for m in view.cluster.machines)}
        free = is_hostname(host.hostname) and len(host.hostname) <= NODE_NAME
        rename = free and host.hostname.partition(".")[0] not in others
        yield view.finding(
            f"its hostname is {host.hostname}; a node's name must be its hostname",
            shell("hostnamectl", "set-hostname", machine.name)
            + (f", or name it {host.hostname} in the inventory" if rename else ""),
        )
    if not view.facts.interface:
        yield view.finding(
            f"has no address {machine.address}; it has {', '.join(host.addresses) or 'none'}",
            "correct `address` in the inventory",
        )
    if not host.machine_id:
        yield view.finding("has no machine-id", f"run on it: {shell('systemd-machine-id-setup')}")


def _system(view: View) -> Iterator[Finding]:
    facts, host = view.facts, view.host
    distribution = facts.distribution
    name = host.os_name or host.os_id or "its distribution"
    supported = (
        "Debian 12, Ubuntu 22.04, Amazon Linux 2023, RHEL 9 or a distribution built from RHEL 9, "
        "or a newer version of these"
    )
    if distribution.family is Family.UNKNOWN:
        yield view.finding(
            f"clusterctl cannot install packages on {name}: it is not of the Debian or RHEL family",
            f"use {supported}",
        )
    elif distribution.proof is Proof.NOTHING:
        yield view.finding(f"{name} is not tested", f"tested: {supported}", fatal=False)
    elif distribution.outdated:
        yield view.finding(
            f"{name} is not tested on machines, and it gets no more security fixes",
            f"use {supported}",
            fatal=False,
        )
    if facts.arch not in {"amd64", "arm64"}:
        yield view.finding(f"its architecture is {facts.arch}", "use amd64 or arm64")
    if host.systemd == 0:
        yield view.finding("does not run systemd", "use a machine that runs systemd")
    elif host.systemd < SYSTEMD:
        yield view.finding(f"its systemd is {host.systemd}", f"{SYSTEMD} or newer is needed")
    if facts.cgroup_version == 1:
        yield view.finding(
            "uses cgroup v1, which Kubernetes has deprecated",
            "boot with systemd.unified_cgroup_hierarchy=1",
            fatal=False,
        )


def _resources(view: View) -> Iterator[Finding]:
    machine, host = view.machine, view.host
    wanted = MASTER_MEMORY if machine.is_master else WORKER_MEMORY
    if host.memory < wanted:
        yield view.finding(
            f"has {host.memory} MiB of memory",
            f"a {'master' if machine.is_master else 'machine'} should have {wanted} MiB",
            fatal=False,
        )
    if machine.is_master and host.cpus < MASTER_CPUS:
        yield view.finding(
            f"has {host.cpus} CPU", f"a master should have {MASTER_CPUS}", fatal=False
        )


def _swap(view: View) -> Iterator[Finding]:
    if not view.host.swap:
        return
    where = ", ".join(view.host.swap)
    if view.facts.container:
        yield view.finding(
            f"its host swaps ({where})",
            "pods may be slower than their limits say",
            fatal=False,
        )
        return
    zram = [name for name in view.host.swap if name.startswith("/dev/zram")]
    if zram:
        # The units of systemd's zram-generator, of Debian's zram-tools and of Ubuntu's zram-config.
        units = [_unit(name) for name in zram]
        yield view.finding(
            f"swap is on ({', '.join(zram)}), and returns at the next boot: a service makes it "
            "from memory",
            f"{shell('systemctl', 'mask', *units, 'zramswap.service', 'zram-config.service')}; "
            f"{shell('swapoff', '-a')}",
        )
    if disks := [name for name in view.host.swap if name not in zram]:
        yield view.finding(
            f"swap is on ({', '.join(disks)})",
            f"{shell('swapoff', '-a')}; and remove its line from /etc/fstab. If it has none: "
            f"{shell('systemctl', 'mask', *(_unit(name) for name in disks))}",
        )


def _unit(swap: str) -> str:
    """Give the name of systemd's unit for a swap device or file, as `systemd-escape --path` does."""
    escaped = (
        c
        if c.isascii() and (c.isalnum() or c in ":_./")
        else "".join(f"\\x{b:02x}" for b in c.encode())
        for c in swap.strip("/")
    )
    return "".join(escaped).replace("/", "-") + ".swap"


def _clock(view: View) -> Iterator[Finding]:
    off = abs(view.host.clock_offset)
    if off <= CLOCK_OFF:
        return
    much = f"{off / 60:.0f} minutes" if off >= CLOCK_WRONG else f"{off:.0f} seconds"
    way = "ahead of" if view.host.clock_offset > 0 else "behind"
    yield view.finding(
        f"its clock is {much} {way} this computer's",
        f"synchronise both with NTP: {shell('timedatectl', 'set-ntp', 'true')}",
        fatal=off > CLOCK_WRONG,
    )


def _ports(view: View) -> Iterator[Finding]:
    reported = set()
    for held in view.host.ports:
        if held.protocol != "tcp" or _held_by_cluster(view, held):
            continue
        holder = held.process or "another process"
        for port, what, address in needed_ports(view.cluster, view.machine):
            clash = held.address in {address, *_ANYWHERE} or address in _ANYWHERE
            if port != held.port or not clash or (port, holder) in reported:
                continue
            reported.add((port, holder))
            unit = f" ({held.unit})" if held.unit else ""
            yield view.finding(
                f"port {port}, for {what}, is taken by {holder}{unit}",
                f"stop it: {shell('systemctl', 'disable', '--now', held.unit)}"
                if held.unit
                else f"stop it; this names it: {shell('ss', '-ltnp', f'sport = {port}')}",
            )


def _held_by_cluster(view: View, held: Held) -> bool:
    """Whether one of the cluster's units holds the port.

    A process without a unit has ended while the probe looked at it. On a machine of this cluster,
    such a process counts as one of the cluster's.
    """
    if held.unit.startswith("clusterctl-"):
        return True
    known = bool(held.process and held.unit)
    return view.joined and (not known or held.unit in view.seen.units)


def needed_ports(
    cluster: Cluster, machine: Machine, components: Iterable[Component] = COMPONENTS
) -> Iterator[tuple[int, str, str]]:
    """Give every port on which a component's process will listen: (port, purpose, address)."""
    addresses = {
        Listens.EVERYWHERE: EVERYWHERE,
        Listens.MACHINE: str(machine.address),
        Listens.LOOPBACK: LOOPBACK,
    }
    for component in components:
        if not component.wanted(cluster, machine):
            continue
        for port in component.ports:
            if (
                port.protocol is Protocol.TCP
                and port.listens in addresses
                and component.opens(cluster, machine, port)
            ):
                yield port.number, port.what, addresses[port.listens]


def _networks(view: View) -> Iterator[Finding]:
    pods, services = view.cluster.networks.pods, view.cluster.networks.services
    own = [IPv4Network(network) for network in (*view.host.routes, *view.host.addresses)]
    if view.joined:
        # On a machine of this cluster, addresses within the pods' network are the pods' own.
        own = [network for network in own if not network.subnet_of(pods)]
    for name, network in (("pods", pods), ("services", services)):
        if overlaps := [str(other) for other in own if network.overlaps(other)]:
            yield view.finding(
                f"the network of the {name}, {network}, overlaps with its own "
                f"{', '.join(overlaps)}",
                f"choose another `cluster.networks.{name}`",
            )


def _kernel(view: View) -> Iterator[Finding]:
    mode, host = view.cluster.networks.proxy_mode, view.host
    if mode == "nftables" and view.machine.is_node and _old(host.kernel):
        yield view.finding(
            f"its kernel is {host.kernel}; kube-proxy needs {KERNEL[0]}.{KERNEL[1]} or newer for "
            "nftables",
            'use a newer distribution, or "proxy_mode": "iptables"',
        )
    distribution = view.facts.distribution
    if mode == "nftables" and view.machine.is_node and not distribution.nft_for_kubernetes:
        yield view.finding(
            f"the nft of {distribution.name} is older than {_dotted(NFT_FOR_KUBERNETES)}, which "
            "kube-proxy needs for nftables",
            'use a newer distribution, or "proxy_mode": "iptables"',
        )
    if "br_netfilter" in host.missing and mode == "iptables":
        yield view.finding(
            "its kernel has no br_netfilter: a pod may get no answer from a Service whose "
            "endpoint is on the same node",
            'use "proxy_mode": "nftables"',
            fatal=False,
        )
    if missing := ", ".join(name for name in host.missing if name != "br_netfilter"):
        if host.outdated:
            yield view.finding(
                f"its kernel {host.kernel} cannot load {missing}: an upgrade has removed the "
                "modules of the kernel that still runs",
                "reboot it",
                # A machine of the cluster has loaded what it needs.
                fatal=not view.joined,
            )
        else:
            yield view.finding(f"its kernel has no {missing}", _modules(view))


def _modules(view: View) -> str:
    """Say how to get modules for the kernel."""
    host = view.host
    if view.facts.container:
        return "load it on the container's host"
    distribution = view.facts.distribution
    package = f"{distribution.modules}{host.kernel}"
    install = (
        shell("apt-get", "install", package)
        if distribution.family is Family.DEBIAN
        else shell("dnf", "install", package)
    )
    own = f"{install}, or " if distribution.modules else ""
    return (
        f"install the kernel's modules: {own}install the distribution's standard kernel and reboot"
    )


def _old(kernel: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", kernel)
    return found is not None and (int(found[1]), int(found[2])) < KERNEL


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


_STOP_FIREWALL = {
    "firewalld": shell("systemctl", "disable", "--now", "firewalld"),
    "ufw": shell("ufw", "disable"),
}


def _firewalls(view: View) -> Iterator[Finding]:
    """Find a firewall that allows SSH only: etcd's members could not reach each other."""
    for name in view.host.firewalls:
        yield view.finding(
            f"{name} is active, and does not let in the cluster's machines",
            f'{_STOP_FIREWALL.get(name, f"stop {name}")}; "firewall": True in the inventory makes '
            "the rules that the cluster needs",
            # On a machine that already belongs to the cluster, the rules allow its traffic.
            fatal=not view.joined,
        )


def _packet_filter(view: View) -> Iterator[Finding]:
    """Find rules of the machine that stop the cluster's traffic."""
    if view.host.firewalls:
        return  # they made the rules, and have their own finding
    rules, cluster = view.host.rules, view.cluster
    for stop in stops(rules, needed(cluster, view.machine, view.facts.interface)):
        chain = stop.chain
        why = f"by its rule `{stop.rule.text}`" if stop.rule else "by its policy"
        yield view.finding(
            f"its packet filter stops {stop.packet.what} from {stop.packet.source}: the chain "
            f"{chain.name} of {chain.command.value}'s table {chain.table} drops it {why}",
            f"{opening(stop, rules, cluster)}; and save the rules where the machine loads them at "
            "boot",
            fatal=not view.joined,
        )


def _selinux(view: View) -> Iterator[Finding]:
    """Check SELinux: it may block the proxies' connections to the API.

    A container runs under its host's policy.
    """
    wanted = []
    if view.machine.is_node:
        wanted.append(HAPROXY_CONNECTS)
    if view.machine.is_master and view.cluster.api.vip:
        wanted.append(KEEPALIVED_CONNECTS)
    off = [name for name in wanted if name in view.host.forbidden]
    if off and not view.facts.container:
        yield view.finding(
            f"SELinux keeps HAProxy and keepalived from the API's ports: {', '.join(off)} is off",
            " && ".join(shell("setsebool", "-P", name, 1) for name in off),
            fatal=not view.joined,
        )


def _bird(view: View) -> Iterator[Finding]:
    """Check BIRD's repository: on most of the RHEL family a new machine needs EPEL for it."""
    cluster, seen, distribution = view.cluster, view.seen, view.facts.distribution
    routed = cluster.networks.plugin == "routed" and not cluster.source.routes_pods
    if distribution.bird_from is Bird.OWN or not routed or not view.machine.is_node or seen.record:
        return
    if seen.packages.isdisjoint({*distribution.packages("bird2"), *EPEL}):
        epel = distribution.epel
        add = f"{shell('dnf', 'install', epel)}; or " if epel else ""
        yield view.finding(
            "its repositories have no BIRD, which the plug-in `routed` needs",
            f'{add}install the package bird by other means, or use "plugin": "custom"',
        )


def _host_ports(view: View) -> Iterator[Finding]:
    """Check that the plug-in portmap can make its rules."""
    distribution = view.facts.distribution
    routed = view.cluster.networks.plugin == "routed" and view.machine.is_node
    if routed and not distribution.nft_for_kubernetes:
        yield view.finding(
            f"the nft of {distribution.name} is older than {_dotted(NFT_FOR_KUBERNETES)}: pods "
            "with a hostPort do not start",
            "use a newer distribution, or no hostPort on this node",
            fatal=False,
        )


def _resolver(view: View) -> Iterator[Finding]:
    """Find a resolver that pods cannot use: with a loopback address, CoreDNS would ask itself."""
    resolver = view.host.resolver
    if not resolver or not view.machine.is_node:
        return
    if "resolv-conf" in view.cluster.extra_args.get("kubelet", {}):
        return
    yield view.finding(
        f"its DNS server {resolver} answers on the machine only: CoreDNS and other pods cannot "
        "use it, and no file names the servers that it asks",
        "write the addresses of those servers into /etc/kubelet-resolv.conf, as lines "
        '`nameserver ADDRESS`, and set "extra_args": {"kubelet": {"resolv-conf": '
        '"/etc/kubelet-resolv.conf"}}; or name them in /etc/resolv.conf',
        fatal=not view.joined,
    )


def _reaches(view: View) -> Iterator[Finding]:
    """Check connections to the other machines. Machines that are off have their own finding."""
    others = {str(m.address): m.name for m in view.cluster.machines}
    lost = [
        address
        for address, reached in view.host.reaches.items()
        if not reached and others.get(address) not in view.off
    ]
    if lost:
        names = ", ".join(f"{others.get(a, a)} ({a})" for a in lost)
        yield view.finding(
            f"cannot open a connection to the SSH port of {names}",
            "machines must reach each other: check firewalls, security groups and addresses",
        )


def _downloads(view: View) -> Iterator[Finding]:
    """Check the servers from which the machine downloads files and images."""
    silent = sorted(name for name, answers in view.host.downloads.items() if not answers)
    if not silent:
        return
    cluster, proxy = view.cluster, view.cluster.proxy
    through = sorted({without_login(url) for url in (proxy.http, proxy.https) if url})
    by_proxy = f", through the proxy {' and '.join(through)}" if through else ""
    by = ("--proxy", through[0]) if through else ()
    address = f"https://{silent[0]}"
    look = clusterctl(
        "ssh", cluster.inventory, view.machine.name, "--", "curl", "-sSI", *by, address
    )
    yield view.finding(
        f"gets no answer from {', '.join(silent)}, nor from a mirror of it{by_proxy}",
        f"`{look}` shows why; "
        + ("correct `proxy`, or set " if through else "set `proxy`, ")
        + "`registry_mirrors` or `artifacts.mirror` in the inventory, or use a bundle: it has files "
        "and images",
    )


CHECKS: tuple[Callable[[View], Iterator[Finding]], ...] = (
    _other_cluster,
    _lost_roles,
    _other_installations,
    _identity,
    _system,
    _resources,
    usable,
    room,
    _swap,
    _clock,
    _ports,
    _networks,
    _kernel,
    _firewalls,
    _packet_filter,
    _selinux,
    _bird,
    _host_ports,
    _resolver,
    _reaches,
    _downloads,
)
