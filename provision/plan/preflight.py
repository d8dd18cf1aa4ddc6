"""Are the machines fit? Everything that is wrong with all of them, at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Network

from provision.desired.packages import EPEL
from provision.model import ports
from provision.model.cluster import Cluster, Machine
from provision.model.errors import Finding
from provision.model.facts import Facts
from provision.model.observed import HostReport, Observed, Port, api_view
from provision.observe.script import HAPROXY_CONNECTS, KEEPALIVED_CONNECTS

# What it has been made for: ID of os-release -> oldest version.
SUPPORTED: Mapping[str, tuple[int, ...]] = {
    "debian": (12,),
    "ubuntu": (22, 4),
    "amzn": (2023,),
    "rhel": (9,),
    "centos": (9,),
    "rocky": (9,),
    "almalinux": (9,),
    "ol": (9,),
}
SYSTEMD = 245  # of Ubuntu 20.04
# kube-proxy refuses older ones in its mode nftables: their nft is too old, too.
KERNEL = (5, 13)
# kubeadm's own preflight: 1700 MB and two CPUs for a control plane.
MASTER_MEMORY, WORKER_MEMORY, MASTER_CPUS = 1700, 700, 2  # MiB
DISK_FULL, DISK_LOW = 2048, 10240  # MiB on /var/lib: binaries and images take 1.5 GiB
# Certificates are backdated by five minutes, etcd warns from one second on.
CLOCK_WRONG, CLOCK_OFF = 120.0, 30.0  # seconds

_ANYWHERE = frozenset({"0.0.0.0", "*", "::"})  # noqa: S104 - compared with, not listened on
_LOOPBACK = "127.0.0.1"


def preflight(
    cluster: Cluster, observed: Mapping[str, Observed], fingerprint: str | None
) -> list[Finding]:
    """Judge the machines, in the inventory's order.

    Args:
        cluster: as desired.
        observed: name -> what its probe saw, of the machines that are looked at: all, or some.
        fingerprint: SHA-256 of the cluster's Kubernetes authority; None when it has none yet.
    """
    running = any(seen.etcd_formed for seen in observed.values())
    findings = [*_twins(cluster, observed)]
    # On EC2 the VPC's route table knows the pods, whatever the subnet.
    if cluster.networks.plugin == "routed" and cluster.source != "ec2":
        findings += _one_network(cluster, observed)
    findings += _virtual_address(cluster, observed)
    away = frozenset(name for name, seen in observed.items() if seen.off)
    for machine in cluster.machines:
        seen = observed.get(machine.name)
        if seen is None:
            continue
        if seen.facts is None or seen.host is None:
            findings.append(_unreachable(cluster, machine, seen, running=running))
            continue
        findings += _owner(cluster, machine, seen, fingerprint)
        for judge in _JUDGES:
            findings += judge(machine, seen.facts, seen.host)
        findings += _ports(cluster, machine, seen, seen.host)
        findings += _networks(cluster, machine, seen, seen.host)
        findings += _kernel(cluster, machine, seen.facts, seen.host)
        findings += _firewalls(cluster, machine, seen, seen.host)
        findings += _selinux(cluster, machine, seen, seen.host)
        findings += _bird(cluster, machine, seen, seen.host)
        findings += _reaches(cluster, machine, seen.host, away)
    order = {machine.name: index for index, machine in enumerate(cluster.machines)}
    findings.sort(key=lambda finding: order[finding.where])
    return [*findings, *_forgotten(cluster, observed)]


def _unreachable(cluster: Cluster, machine: Machine, seen: Observed, *, running: bool) -> Finding:
    """Dead machines are what a running cluster is made to bear; a new one needs all of its own."""
    ssh = machine.ssh
    if seen.off and running:
        return Finding(
            machine.name,
            f"is left out: {seen.error}",
            "start it; if it is gone for good: "
            f"clusterctl node replace {cluster.inventory} {machine.name}",
            fatal=False,
        )
    if "sudo" in seen.error:
        what = f"{ssh.user} cannot become root: {seen.error}"
        hint = f"give {ssh.user} a sudo rule without a password, or set `_sudo_password`"
    else:
        what = f"cannot be looked at: {seen.error or 'no answer'}"
        hint = f"try: ssh -p {ssh.port} {ssh.user}@{ssh.hostname}"
    return Finding(machine.name, what, seen.hint or hint)


def _forgotten(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Nodes that the inventory has lost. On EC2 a group's workers are in none."""
    api = api_view(observed)
    if api is None or cluster.source == "ec2":
        return
    names = {machine.name for machine in cluster.machines}
    for node in api.nodes:
        if node.name not in names:
            yield Finding(
                node.name,
                "is a Node of the cluster, and the inventory does not have it",
                "put its line back; to be rid of it, then: "
                f"clusterctl node remove {cluster.inventory} {node.name}",
                fatal=False,
            )


def altered(observed: Mapping[str, Observed]) -> list[Finding]:
    """Binaries of ours that are not what was installed; exact after a deep look only."""
    return [
        Finding(
            name,
            f"{binary.path} is not what was installed ({binary.version}): content, owner or mode "
            "differs",
            "find out who changed it; clusterctl up puts the pinned one back",
        )
        for name, seen in observed.items()
        for binary in seen.binaries.values()
        if not binary.intact
    ]


def _owner(
    cluster: Cluster, machine: Machine, seen: Observed, fingerprint: str | None
) -> Iterator[Finding]:
    if seen.cluster and seen.cluster != cluster.name:
        yield Finding(
            machine.name,
            f"belongs to the cluster {seen.cluster}, not to {cluster.name}",
            "take it out of this inventory, or run `clusterctl down` with the inventory of "
            f"{seen.cluster} first",
        )
    elif seen.fingerprint and fingerprint and seen.fingerprint != fingerprint:
        yield Finding(
            machine.name,
            f"belongs to another cluster of the name {seen.cluster}: its authority is "
            f"{seen.fingerprint[:12]}, ours is {fingerprint[:12]}",
            "give this cluster another name, or take the other one down first",
        )
    roles = {"etcd": (machine.has_etcd, "an etcd member"), "kubelet": (machine.is_node, "a node")}
    for component, (wanted, what) in roles.items():
        if component in seen.record and not wanted:
            yield Finding(
                machine.name,
                f"is {what} of the cluster, and the inventory no longer wants it to be one",
                f"clusterctl node remove {cluster.inventory} {machine.name}, with the roles that "
                "it has; then add it again",
            )
    for sign in seen.host.foreign if seen.host else ():
        tool, _, where = sign.partition(": ")
        if tool == "docker":
            yield Finding(
                machine.name,
                f"Docker is there ({where})",
                "it may stay, but its containers are not Kubernetes' business",
                fatal=False,
            )
        else:
            yield Finding(
                machine.name,
                f"has an installation of {tool} that is not ours ({where})",
                "remove it with its own tools, or take a machine without it",
            )


# One machine by itself


def _system(machine: Machine, facts: Facts, host: HostReport) -> Iterator[Finding]:
    oldest = SUPPORTED.get(host.os_id)
    name = host.os_name or host.os_id or "its distribution"
    made_for = "Debian 12, Ubuntu 22.04, Amazon Linux 2023, RHEL 9 and its likes, or newer"
    if not facts.os_family:
        yield Finding(
            machine.name, f"{name} has packages of a kind we do not know", f"use {made_for}"
        )
    elif oldest is None or _version(host.os_version) < oldest:
        yield Finding(machine.name, f"{name} was never tried", f"made for {made_for}", fatal=False)
    if facts.arch not in {"amd64", "arm64"}:
        yield Finding(machine.name, f"its architecture is {facts.arch}", "use amd64 or arm64")
    if host.systemd == 0:
        yield Finding(machine.name, "does not run systemd", "use a machine that does")
    elif host.systemd < SYSTEMD:
        yield Finding(
            machine.name, f"its systemd is {host.systemd}", f"{SYSTEMD} or newer is needed"
        )
    if facts.cgroup_version == 1:
        yield Finding(
            machine.name,
            "uses cgroup v1, which Kubernetes only still tolerates",
            "boot with systemd.unified_cgroup_hierarchy=1",
            fatal=False,
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _resources(machine: Machine, facts: Facts, host: HostReport) -> Iterator[Finding]:
    wanted = MASTER_MEMORY if machine.is_master else WORKER_MEMORY
    if host.memory < wanted:
        yield Finding(
            machine.name,
            f"has {host.memory} MiB of memory",
            f"a {'master' if machine.is_master else 'machine'} should have {wanted} MiB",
            fatal=False,
        )
    if machine.is_master and host.cpus < MASTER_CPUS:
        yield Finding(
            machine.name, f"has {host.cpus} CPU", f"a master should have {MASTER_CPUS}", fatal=False
        )
    if host.var_free < DISK_LOW:
        full = host.var_free < DISK_FULL
        yield Finding(
            machine.name,
            f"its disk is {'full' if full else 'nearly full'}: "
            f"{host.var_free} MiB are free on /var/lib",
            f"make room: {DISK_FULL if full else DISK_LOW} MiB",
            fatal=full,
        )
    if host.swap:
        where = ", ".join(host.swap)
        if facts.container:
            yield Finding(
                machine.name,
                f"its host swaps ({where})",
                "pods may be slower than their limits say",
                fatal=False,
            )
        else:
            yield Finding(
                machine.name,
                f"swap is on ({where})",
                "swapoff -a, and take its line out of /etc/fstab",
            )


def _clock(machine: Machine, _: Facts, host: HostReport) -> Iterator[Finding]:
    off = abs(host.clock_offset)
    if off <= CLOCK_OFF:
        return
    much = f"{off / 60:.0f} minutes" if off >= CLOCK_WRONG else f"{off:.0f} seconds"
    way = "ahead of" if host.clock_offset > 0 else "behind"
    yield Finding(
        machine.name,
        f"its clock is {much} {way} this computer's",
        "set both by NTP: timedatectl set-ntp true",
        fatal=off > CLOCK_WRONG,
    )


def _identity(machine: Machine, facts: Facts, host: HostReport) -> Iterator[Finding]:
    if host.hostname != machine.name:
        yield Finding(
            machine.name,
            f"its hostname is {host.hostname}, and a node's name is its hostname",
            f"hostnamectl set-hostname {machine.name}, or call it {host.hostname} here",
        )
    if not facts.interface:
        yield Finding(
            machine.name,
            f"has no address {machine.address}; it has {', '.join(host.addresses) or 'none'}",
            "correct `address` in the inventory",
        )
    if not host.machine_id:
        yield Finding(machine.name, "has no machine-id", "run systemd-machine-id-setup on it")


_JUDGES: tuple[Callable[[Machine, Facts, HostReport], Iterator[Finding]], ...] = (
    _identity,
    _system,
    _resources,
    _clock,
)


def _kernel(
    cluster: Cluster, machine: Machine, facts: Facts, host: HostReport
) -> Iterator[Finding]:
    if cluster.networks.proxy_mode == "nftables" and machine.is_node and _old(host.kernel):
        yield Finding(
            machine.name,
            f"its kernel is {host.kernel}; kube-proxy wants {KERNEL[0]}.{KERNEL[1]} or newer for "
            "nftables",
            'take a newer distribution, or "proxy_mode": "iptables"',
        )
    for feature in host.missing:
        if feature == "br_netfilter":
            if cluster.networks.proxy_mode == "iptables":
                yield Finding(
                    machine.name,
                    "its kernel has no br_netfilter: Services may not answer pods of their own node",
                    'use "proxy_mode": "nftables"',
                    fatal=False,
                )
        else:
            where = "load it on its host" if facts.container else "install the kernel's modules"
            yield Finding(machine.name, f"its kernel has no {feature}", where)


def _old(kernel: str) -> bool:
    found = re.match(r"(\d+)\.(\d+)", kernel)
    return found is not None and (int(found[1]), int(found[2])) < KERNEL


def _ports(
    cluster: Cluster, machine: Machine, seen: Observed, host: HostReport
) -> Iterator[Finding]:
    told = set()
    for held in host.ports:
        if held.protocol != "tcp" or _ours(cluster, seen, held):
            continue
        holder = held.process or "another process"
        for port, name, address in _wanted_ports(cluster, machine):
            clash = held.address in {address, *_ANYWHERE} or address in _ANYWHERE
            if port != held.port or not clash or (port, holder) in told:
                continue
            told.add((port, holder))
            unit = f" ({held.unit})" if held.unit else ""
            yield Finding(
                machine.name,
                f"port {port}, for {name}, is taken by {holder}{unit}",
                f"stop it: systemctl disable --now {held.unit}" if held.unit else "stop it",
            )


def _ours(cluster: Cluster, seen: Observed, held: Port) -> bool:
    """Tell whether a unit of ours holds it; on a machine of ours the unknown is taken for ours."""
    if held.unit.startswith("clusterctl-"):
        return True
    # A process without a unit has ended while it was being looked at.
    known = bool(held.process and held.unit)
    return seen.cluster == cluster.name and (not known or held.unit in seen.units)


def _wanted_ports(cluster: Cluster, machine: Machine) -> Iterator[tuple[int, str, str]]:
    """List (port, whose, the address that it listens on)."""
    everywhere, own = "0.0.0.0", str(machine.address)  # noqa: S104 - see provision.model.ports
    yield ports.ARTIFACTS, "the copying of artifacts", own
    if machine.is_node:
        yield ports.KUBELET, "kubelet", everywhere
        yield ports.KUBELET_HEALTH, "kubelet", _LOOPBACK
        yield ports.API_PROXY, "the API's proxy", _LOOPBACK
        yield ports.REGISTRY_PROXY, "the registries' proxy", _LOOPBACK
        if cluster.networks.proxy_mode != "none":
            yield ports.KUBE_PROXY_HEALTH, "kube-proxy", everywhere
            yield ports.KUBE_PROXY_METRICS, "kube-proxy", _LOOPBACK
    if machine.is_master:
        yield ports.API, "kube-apiserver", everywhere
        yield ports.API_MONITOR, "the API's monitor", everywhere
        yield ports.CONTROLLER_MANAGER, "kube-controller-manager", _LOOPBACK
        yield ports.SCHEDULER, "kube-scheduler", _LOOPBACK
        if cluster.source == "ec2":
            yield ports.CLOUD_CONTROLLER_MANAGER, "the cloud controller", _LOOPBACK
        yield ports.REGISTRY, "the registry", own
    if machine.has_etcd:
        yield ports.ETCD_CLIENT, "etcd", own
        yield ports.ETCD_CLIENT, "etcd", _LOOPBACK
        yield ports.ETCD_PEER, "etcd", own
        yield ports.ETCD_METRICS, "etcd", _LOOPBACK


def _networks(
    cluster: Cluster, machine: Machine, seen: Observed, host: HostReport
) -> Iterator[Finding]:
    pods, services = cluster.networks.pods, cluster.networks.services
    own = [IPv4Network(there) for there in (*host.routes, *host.addresses)]
    if seen.cluster == cluster.name:
        # On a machine of ours, what is within the pods' network is the pods'.
        own = [network for network in own if not network.subnet_of(pods)]
    for name, network in (("pods", pods), ("services", services)):
        if overlaps := [str(other) for other in own if network.overlaps(other)]:
            yield Finding(
                machine.name,
                f"the network of the {name}, {network}, overlaps with its own "
                f"{', '.join(overlaps)}",
                f"choose another `cluster.networks.{name}`",
            )


def _firewalls(
    cluster: Cluster, machine: Machine, seen: Observed, host: HostReport
) -> Iterator[Finding]:
    """Find firewalls that let SSH in and nothing of a cluster: etcd's members would time out."""
    for name in host.firewalls:
        yield Finding(
            machine.name,
            f"{name} is at work, and does not let in what machines of a cluster say to each other",
            f'{_STOP_FIREWALL.get(name, f"stop {name}")}; "firewall": True in the inventory has '
            "rules that fit",
            # What runs has been let through.
            fatal=seen.cluster != cluster.name,
        )


_STOP_FIREWALL = {
    "firewalld": "systemctl disable --now firewalld",
    "ufw": "ufw disable",
}


def _selinux(
    cluster: Cluster, machine: Machine, seen: Observed, host: HostReport
) -> Iterator[Finding]:
    """Find what SELinux forbids the proxies. A container runs under its host's policy."""
    wanted = []
    if machine.is_node:
        wanted.append(HAPROXY_CONNECTS)
    if machine.is_master and cluster.api.vip:
        wanted.append(KEEPALIVED_CONNECTS)
    off = [name for name in wanted if name in host.forbidden]
    if off and not (seen.facts and seen.facts.container):
        yield Finding(
            machine.name,
            f"SELinux keeps HAProxy and keepalived from the API's ports: {', '.join(off)} is off",
            " && ".join(f"setsebool -P {name} 1" for name in off),
            fatal=seen.cluster != cluster.name,
        )


def _bird(
    cluster: Cluster, machine: Machine, seen: Observed, host: HostReport
) -> Iterator[Finding]:
    """Find new machines of the RHEL family that have no repository with BIRD, which is EPEL's."""
    routed = cluster.networks.plugin == "routed" and cluster.source != "ec2"
    of_epel = seen.facts and seen.facts.os_family == "rhel" and host.os_id != "fedora"
    if not (routed and of_epel and machine.is_node) or seen.record:
        return
    if seen.packages.isdisjoint({"bird", *EPEL}):
        there_is = "" if host.os_id == "amzn" else "dnf install epel-release; or "
        yield Finding(
            machine.name,
            "its repositories have no BIRD, which the plug-in `routed` needs",
            f'{there_is}install bird from where you have it, or use "plugin": "custom"',
        )


def _reaches(
    cluster: Cluster, machine: Machine, host: HostReport, away: frozenset[str]
) -> Iterator[Finding]:
    others = {str(m.address): m.name for m in cluster.machines}
    # Whom nobody reaches has a finding of its own.
    lost = [a for a, reached in host.reaches.items() if not reached and others.get(a) not in away]
    if lost:
        names = ", ".join(f"{others.get(a, a)} ({a})" for a in lost)
        yield Finding(
            machine.name,
            f"cannot open a connection to the SSH port of {names}",
            "machines must reach each other: check firewalls, security groups and addresses",
        )


# Machines compared


def _twins(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Find what two machines have in common and must not."""
    for what, value, hint in _UNIQUE:
        first: dict[str, str] = {}
        for machine in cluster.machines:
            host = seen.host if (seen := observed.get(machine.name)) else None
            same = value(host) if host else ""
            if same and first.setdefault(same, machine.name) != machine.name:
                yield Finding(machine.name, f"has the same {what} as {first[same]}: {same}", hint)


_UNIQUE: tuple[tuple[str, Callable[[HostReport], str], str], ...] = (
    ("hostname", lambda host: host.hostname, "are they the same machine? Give each its own"),
    (
        "machine-id",
        lambda host: host.machine_id,
        "on a clone: rm /etc/machine-id && systemd-machine-id-setup, then reboot",
    ),
)


def _virtual_address(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Find masters that could not hold the API's address, and somebody else who does."""
    vip = cluster.api.vip
    if vip is None:
        return
    masters = {m.name: observed[m.name] for m in cluster.masters if m.name in observed}
    for name, seen in masters.items():
        if seen.facts and seen.facts.network and vip not in IPv4Network(seen.facts.network):
            yield Finding(
                name,
                f"is in the network {seen.facts.network}, which {vip} is not an address of",
                "choose a free address of the masters' own network as `cluster.api.vip`",
            )
    hosts = [seen.host for seen in masters.values() if seen.host]
    # One that is away, or was not looked at, may be its rightful holder.
    all_seen = len(hosts) == len(cluster.masters)
    if all_seen and not any(str(vip) in host.addresses for host in hosts):
        taken = [name for name, seen in masters.items() if seen.host and seen.host.vip_answers]
        if taken:
            yield Finding(
                taken[0],
                f"somebody else answers at {vip}, the virtual address of the API",
                "choose a free address of the masters' own network as `cluster.api.vip`",
            )


def _one_network(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Find nodes that are not neighbours, which `routed` needs: no router knows the pods."""
    networks = {
        machine.name: facts.network
        for machine in cluster.nodes
        if (seen := observed.get(machine.name)) and (facts := seen.facts) and facts.network
    }
    usual = max(networks.values(), key=[*networks.values()].count, default="")
    for name, network in networks.items():
        if network != usual:
            yield Finding(
                name,
                f"is in the network {network}, others in {usual}: the plug-in `routed` needs all "
                "nodes on one layer-2 network",
                'put it there, or use "plugin": "custom" with a plug-in that tunnels',
            )
