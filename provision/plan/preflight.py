"""Check whether the machines are suitable. Returns all faults of all machines at once. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path

from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl, shell
from provision.model.errors import Finding
from provision.model.observed import HostReport, Observed, api_view
from provision.plan.machine_checks import CHECKS
from provision.plan.view import View


def preflight(
    cluster: Cluster, observed: Mapping[str, Observed], fingerprint: str | None
) -> list[Finding]:
    """Check the machines; the findings are in the inventory's order.

    Args:
        cluster: as desired.
        observed: name -> result of its probe, of the probed machines: all, or some.
        fingerprint: SHA-256 of the cluster's Kubernetes authority; None: it does not exist yet.
    """
    findings = [finding for compare in _COMPARISONS for finding in compare(cluster, observed)]
    for machine in cluster.machines:
        if machine.name in observed:
            findings += _of_machine(cluster, machine, observed, fingerprint)
    order = {machine.name: index for index, machine in enumerate(cluster.machines)}
    findings.sort(key=lambda finding: order[finding.where])
    return [*findings, *_not_in_inventory(cluster, observed)]


def _of_machine(
    cluster: Cluster, machine: Machine, observed: Mapping[str, Observed], fingerprint: str | None
) -> Iterator[Finding]:
    seen = observed[machine.name]
    if seen.facts is None or seen.host is None:
        running = any(other.etcd_formed for other in observed.values())
        yield _unreachable(cluster, machine, seen, running=running)
        return
    off = frozenset(name for name, other in observed.items() if other.off)
    view = View(cluster, machine, seen, seen.facts, seen.host, fingerprint, off)
    for check in CHECKS:
        yield from check(view)


def _unreachable(cluster: Cluster, machine: Machine, seen: Observed, *, running: bool) -> Finding:
    """Report an unreachable machine. A new cluster needs all machines; a running one does not."""
    ssh = machine.ssh
    if seen.off and running:
        return Finding(
            machine.name,
            f"is left out: {seen.error}",
            "start it; if it is gone for good: "
            f"{clusterctl('node', 'replace', cluster.inventory, machine.name)}",
            fatal=False,
        )
    return Finding(
        machine.name,
        f"is unreachable: {seen.error or 'no answer'}",
        seen.hint or f"try: {shell('ssh', '-p', ssh.port, f'{ssh.user}@{ssh.hostname}')}",
    )


def _not_in_inventory(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Find Nodes that the inventory does not have. No inventory has a group's workers."""
    api = api_view(observed)
    if api is None or cluster.source.has_group:
        return
    names = {machine.name for machine in cluster.machines}
    for node in api.nodes:
        if node.name not in names:
            yield Finding(
                node.name,
                "is a Node of the cluster, but not in the inventory",
                "add it to the inventory; to remove it from the cluster, then run: "
                f"{clusterctl('node', 'remove', cluster.inventory, node.name)}",
                fatal=False,
            )


def altered(inventory: Path, observed: Mapping[str, Observed]) -> list[Finding]:
    """Find binaries that differ from those that clusterctl installed; exact after a deep probe."""
    return [
        Finding(
            name,
            f"{binary.path} is not what was installed ({binary.version}): content, owner or mode "
            "differs",
            f"find out who changed it; {clusterctl('up', inventory)} installs the pinned file again",
        )
        for name, seen in observed.items()
        for binary in seen.binaries.values()
        if not binary.intact
    ]


# Machines compared with each other


def _twins(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Find names that two machines share and must not share."""
    for what, value, hint in _UNIQUE:
        first: dict[str, str] = {}
        for machine in cluster.machines:
            host = seen.host if (seen := observed.get(machine.name)) else None
            same = value(host) if host else ""
            if same and first.setdefault(same, machine.name) != machine.name:
                yield Finding(machine.name, f"has the same {what} as {first[same]}: {same}", hint)


# systemd-machine-id-setup takes over the id of D-Bus, which a clone has too.
_NEW_ID = (
    f"{shell('rm', '-f', '/etc/machine-id', '/var/lib/dbus/machine-id')} && "
    f"{shell('systemd-machine-id-setup')}"
)
_UNIQUE: tuple[tuple[str, Callable[[HostReport], str], str], ...] = (
    (
        "hostname",
        lambda host: host.hostname,
        "check that the two addresses are two machines, and give each its own hostname",
    ),
    (
        "machine-id",
        lambda host: host.machine_id,
        f"on a clone: {_NEW_ID}; then reboot",
    ),
)


def _one_network(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Find nodes on another network than the others.

    The plug-in `routed` needs one network for all nodes, because routers have no routes to pods. On
    EC2 the VPC's route table has the routes to pods, for all subnets.
    """
    if cluster.networks.plugin != "routed" or cluster.source.routes_pods:
        return
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
                'move it to that network, or use "plugin": "custom" with an overlay network',
            )


def _virtual_address(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[Finding]:
    """Find masters that could not hold the API's address, and another machine that holds it."""
    vip = cluster.api.vip
    if vip is None:
        return
    hint = "choose a free address of the masters' own network as `cluster.api.vip`"
    masters = {m.name: observed[m.name] for m in cluster.masters if m.name in observed}
    for name, seen in masters.items():
        if seen.facts and seen.facts.network and vip not in IPv4Network(seen.facts.network):
            what = f"is in the network {seen.facts.network}, which {vip} is not an address of"
            yield Finding(name, what, hint)
    hosts = [seen.host for seen in masters.values() if seen.host]
    # A master that is unreachable, or was not probed, may be the rightful holder.
    all_seen = len(hosts) == len(cluster.masters)
    if all_seen and not any(str(vip) in host.addresses for host in hosts):
        taken = [name for name, seen in masters.items() if seen.host and seen.host.vip_answers]
        if taken:
            what = f"another machine answers at {vip}, the virtual address of the API"
            yield Finding(taken[0], what, hint)


_COMPARISONS: tuple[Callable[[Cluster, Mapping[str, Observed]], Iterator[Finding]], ...] = (
    _twins,
    _one_network,
    _virtual_address,
)
