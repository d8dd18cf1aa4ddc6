"""Plans that are refused, because they would harm the cluster that exists. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from provision.desired.components.control_plane import issuer
from provision.desired.components.etcd import UNIT as ETCD
from provision.desired.components.etcd import peer_url
from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError
from provision.model.observed import Observed
from provision.plan.model import MachinePlan
from provision.plan.quorum import (
    Membership,
    Standing,
    against_join,
    against_restart,
    standing,
)


def refuse_unfinished_restore(cluster: Cluster, observed: Mapping[str, Observed]) -> None:
    """Check for an unfinished restore. Members may have different data, so no member may start.

    Raises:
        RefusedError: a machine has the marker of an unfinished restore.
    """
    names = ", ".join(o.machine for o in observed.values() if o.restoring)
    if names:
        raise RefusedError(
            f"a restore of {cluster.name} did not finish (on {names})",
            hint="finish it with the same snapshot: "
            f"{clusterctl('etcd', 'restore', cluster.inventory, '--from', 'SNAPSHOT')}; "
            "if `recover` did not finish: "
            f"{clusterctl('recover', cluster.inventory)}",
        )


def refuse_far_version(cluster: Cluster, observed: Mapping[str, Observed]) -> None:
    """Check the version: Kubernetes is upgraded by one minor version at a time, never downgraded.

    During an upgrade apiservers differ. A master that was off for long may follow the others.

    Raises:
        RefusedError: names the version to write instead.
    """
    running = sorted(r for o in observed.values() if o.api and (r := _release(o.api.version)))
    wanted = _release(cluster.kubernetes)
    if not running or not wanted:
        return
    (major, minor, _), newest = running[0], running[-1]
    version = ".".join(map(str, newest))
    message = (
        f"{cluster.name} runs Kubernetes {version}, and the inventory wants {cluster.kubernetes}"
    )
    if wanted[:2] < newest[:2]:
        raise RefusedError(
            f"{message}: an older version may not read what a newer one has written",
            hint=f'write "kubernetes": "{version}"; to go back to an older version, restore a '
            "snapshot from before the upgrade: docs/upgrading.md",
        )
    step = max(newest[:2], (major, minor + 1))
    if wanted[:2] > step:
        raise RefusedError(
            f"{message}: Kubernetes supports upgrades by one minor version at a time",
            hint=f'write a version {step[0]}.{step[1]} as "kubernetes" first, and run '
            f"{clusterctl('up', cluster.inventory)}",
        )


def refuse_changed_networks(cluster: Cluster, observed: Mapping[str, Observed]) -> None:
    """Check the settings that an existing cluster keeps for life.

    Nodes have their parts of the pod network, Services their addresses, and pods and certificates
    the domain. No program of Kubernetes gives them others. If a machine already has the wanted
    value, an earlier version of clusterctl has begun the change, and it may be finished.

    Raises:
        RefusedError: with every such setting that the inventory changes.
    """
    if not any(view.etcd_formed for view in observed.values()):
        return
    networks = cluster.networks
    wanted = {
        "pods": ("cluster-cidr", str(networks.pods)),
        "node_prefix": ("node-cidr-mask-size", str(networks.node_prefix)),
        "services": ("service-cluster-ip-range", str(networks.services)),
        "domain": ("domain", networks.domain),
    }
    changed = {}
    for setting, (flag, value) in wanted.items():
        has = {view.for_life[flag] for view in observed.values() if flag in view.for_life}
        if has and value not in has:
            changed[setting] = (value, min(has))
    if not changed:
        _refuse_changed_issuer(cluster, observed)
        return
    changes = ", ".join(f"{name} from {was} to {to}" for name, (to, was) in changed.items())
    before = json.dumps(
        {name: int(was) if was.isdecimal() else was for name, (_, was) in changed.items()}
    )
    raise RefusedError(
        f"the inventory changes networks of {cluster.name}: {changes}. Its nodes, Services and pods "
        "keep what the cluster was made with, and would lose each other: nothing was changed",
        hint=f'write {before} in "networks" again; for other networks make a new cluster and '
        "move the applications: docs/inventory.md",
    )


def _refuse_changed_issuer(cluster: Cluster, observed: Mapping[str, Observed]) -> None:
    """Refuse another issuer: apiservers would no longer accept the tokens of running pods."""
    flag, wanted = "service-account-issuer", issuer(cluster)
    has = {view.for_life[flag] for view in observed.values() if flag in view.for_life}
    if not has or wanted.replace("%", "%%").replace("$", "$$") in has:
        return
    was = min(has)
    raise RefusedError(
        f"the inventory changes the issuer of the tokens of {cluster.name}, from {was} to {wanted}. "
        "The API would refuse all pods that have a token of the first issuer. Nothing was changed",
        hint=f'write "{flag}": "{was}" in "extra_args" of kube-apiserver; for another issuer make a '
        "new cluster and move the applications",
    )


def refuse_moved_members(cluster: Cluster, observed: Mapping[str, Observed]) -> None:
    """Check that etcd's members have the inventory's addresses.

    The other members connect to the address in etcd's member list. The member's data has it too.

    Raises:
        RefusedError: names every member whose machine has another address in the inventory.
    """
    listed = {
        member.name: member.peer_urls
        for view in observed.values()
        if view.etcd
        for member in view.etcd.members
        if member.name
    }
    moved = {
        machine.name: (urls[0], str(machine.address))
        for machine in cluster.etcd_members
        if (urls := tuple(filter(None, listed.get(machine.name, ()))))
        and peer_url(machine) not in urls
    }
    if not moved:
        return
    changes = "; ".join(
        f"{name} is the member at {urlsplit(url).hostname}, and the inventory says {address}"
        for name, (url, address) in moved.items()
    )
    name = next(iter(moved))
    raise RefusedError(
        f"etcd's members keep their addresses: {changes}. Nothing was changed",
        hint=f"if {name} really has a new address: "
        f"{clusterctl('node', 'replace', cluster.inventory, name)}, one machine after the other; else write the old address again",
    )


def _release(version: str) -> tuple[int, int, int] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def standings(
    cluster: Cluster, reachable: Mapping[str, Observed], known: Membership | None, *, formed: bool
) -> dict[str, Standing]:
    """Give name -> standing in etcd, of each reachable machine that should have an etcd member.

    Args:
        reachable: name -> result of its probe, of the machines that answer.
        known: etcd's members; None: there is no quorum.
        formed: whether any machine was ever part of a healthy etcd.

    Raises:
        RefusedError: the plan would start a member that could lose data, or would join too early.
    """
    members = [m.name for m in cluster.etcd_members]
    found = {n: standing(reachable[n], known, formed=formed) for n in members if n in reachable}
    if not formed:
        _refuse_incomplete(cluster, members, reachable)
    _refuse_lost_data(cluster, found)
    _refuse_unknown(cluster, found)
    _refuse_join(cluster, found, known)
    return found


def _refuse_incomplete(
    cluster: Cluster, members: list[str], reachable: Mapping[str, Observed]
) -> None:
    """Refuse a new cluster with unreachable machines: one may have a member with data."""
    if missing := [name for name in members if name not in reachable]:
        message = (
            f"{', '.join(missing)} cannot be reached: a new cluster is formed only when every "
            "machine that is to have an etcd member answers, and none has data of one"
        )
        raise RefusedError(
            message, hint=f"{clusterctl('check', cluster.inventory)} says what is wrong with them"
        )


def _refuse_lost_data(cluster: Cluster, found: Mapping[str, Standing]) -> None:
    lost = [n for n, s in found.items() if s in {Standing.WIPED, Standing.STRANGER}]
    if lost:
        why = "; ".join(f"{name} {found[name].value}" for name in lost)
        message = (
            f"the cluster {cluster.name} exists, and {why}. Starting etcd there could lose data "
            "of the cluster: nothing was changed"
        )
        raise RefusedError(
            message,
            hint="put the machine's disk back if you can; if its data is lost: "
            f"{clusterctl('node', 'replace', cluster.inventory, lost[0])}",
        )


def _refuse_unknown(cluster: Cluster, found: Mapping[str, Standing]) -> None:
    if unknown := [n for n, s in found.items() if s is Standing.UNKNOWN]:
        message = (
            f"the cluster {cluster.name} exists, but {', '.join(unknown)} is empty, and etcd has "
            "no quorum that could say whether it is a member: nothing was changed"
        )
        raise RefusedError(
            message,
            hint="start the other members' machines; if they are gone for good: "
            f"{clusterctl('recover', cluster.inventory)}",
        )


def _refuse_join(cluster: Cluster, found: Mapping[str, Standing], known: Membership | None) -> None:
    if known is None:
        return
    new = [n for n, s in found.items() if s is Standing.JOINER and not known.get(n)]
    if new and (reason := against_join(known)):
        message = f"{', '.join(new)} cannot join etcd now: {reason}"
        raise RefusedError(message, hint=_repair(cluster, known))


def refuse_restarts(
    cluster: Cluster,
    reachable: Mapping[str, Observed],
    known: Membership | None,
    machines: Mapping[str, MachinePlan],
) -> None:
    """Refuse a plan that would restart a member on which the quorum depends.

    Raises:
        RefusedError: names the member, and the member to repair first.
    """
    if known is None:
        return
    # Members that do not run are started before any other is restarted.
    starting = frozenset(n for n in machines if n in known.voters and not reachable[n].runs(ETCD))
    then = replace(known, healthy=known.healthy | starting)
    for name, plan in machines.items():
        etcd = plan.components.get("etcd")
        if etcd and etcd.restarts and (reason := against_restart(then, name)):
            causes = ", ".join(unit.reason for unit in etcd.units)
            message = f"etcd on {name} needs a restart ({causes}), but {reason}"
            raise RefusedError(message, hint=_repair(cluster, then))


def _repair(cluster: Cluster, members: Membership) -> str:
    name = members.ailing[0]
    return f"repair {name} first, or: {clusterctl('node', 'replace', cluster.inventory, name)}"
