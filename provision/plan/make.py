"""(desired, observed) -> Plan: what would be done, machine by machine. Pure.

The dry run prints a Plan, `up` carries the same Plan out: there is no second opinion.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet
from provision.desired.addons import manifests
from provision.desired.catalog import desired
from provision.desired.components.etcd import UNIT as ETCD
from provision.desired.model import ComponentState, Directory, HostFile, Unit, reads
from provision.model import paths
from provision.model.cluster import Cluster, Machine
from provision.model.errors import RefusedError
from provision.model.observed import NodeView, Observed, ObservedFile, api_view
from provision.pki import table
from provision.pki.leaf import DUE, Leaf, problem
from provision.pki.trust import Trust
from provision.plan import external_authority as outside
from provision.plan.model import (
    ComponentPlan,
    FileChange,
    LeafChange,
    MachinePlan,
    Plan,
    Renewal,
    UnitChange,
)
from provision.plan.node_change import node_change
from provision.plan.quorum import (
    Membership,
    Standing,
    against_join,
    against_restart,
    membership,
    standing,
)
from provision.plan.record import Wanted

# By then a kubelet has renewed its own: it does so after 70 to 90 % of its life.
KUBELETS_RESERVE = 0.1
SIGNED = "signed anew"


def make_plan(
    cluster: Cluster,
    trust: Trust,
    observed: Mapping[str, Observed],
    artifacts: ArtifactSet,
    now: datetime,
    renewal: Renewal | None = None,
) -> Plan:
    """All that `up` would do.

    Args:
        observed: name -> what its probe saw, of the machines that are looked at: all, or some.
        renewal: what is to be issued again as well.

    Raises:
        RefusedError: what the inventory asks for would harm the cluster that is there.
    """
    _no_restore(cluster, observed)
    _near_version(cluster, observed)
    there = {name: view for name, view in observed.items() if view.reachable}
    known = membership(cluster, there)
    api = api_view(observed)
    # An apiserver is ready only with an etcd that was formed, whether that was looked at or not.
    formed = api is not None or any(view.etcd_formed for view in there.values())
    standings = _standings(cluster, there, known, formed=formed)
    nodes = None if api is None else {n.name: n for n in api.nodes}
    machines = {
        m.name: plan_machine(
            cluster,
            m,
            trust,
            there[m.name],
            artifacts,
            now,
            etcd=standings.get(m.name, Standing.MEMBER),
            nodes=nodes,
            renewal=renewal,
        )
        for m in cluster.machines
        if m.name in there
    }
    _refuse_restarts(cluster, there, known, machines)
    applied = {} if api is None else api.applied
    deployed = {} if api is None else api.deployments
    wanted = manifests(cluster, trust)
    return Plan(
        machines=machines,
        absent={name: view.error for name, view in observed.items() if not view.reachable},
        apply=tuple(
            m
            for m in wanted
            if applied.get(m.name) != m.sha256 or (m.deployment and m.deployment not in deployed)
        ),
        delete=tuple(sorted(set(applied) - {m.name for m in wanted})),
        running=formed and _alive(there),
    )


def _no_restore(cluster: Cluster, observed: Mapping[str, Observed]) -> None:
    """Members may have old and restored data side by side: nothing may start them."""
    names = ", ".join(o.machine for o in observed.values() if o.restoring)
    if names:
        raise RefusedError(
            f"a restore of {cluster.name} was not finished (on {names})",
            hint=f"finish it: clusterctl etcd restore {cluster.inventory}, with the same snapshot; "
            f"or clusterctl recover {cluster.inventory}, if it was that",
        )


def _near_version(cluster: Cluster, observed: Mapping[str, Observed]) -> None:
    """Kubernetes goes up by one minor version at a time, and never down.

    In the middle of an upgrade apiservers differ; one that was away for long may follow the others.
    """
    running = sorted(r for o in observed.values() if o.api and (r := _release(o.api.version)))
    wanted = _release(cluster.kubernetes)
    if not running or not wanted:
        return
    (major, minor, _), newest = running[0], running[-1]
    there = ".".join(map(str, newest))
    message = (
        f"{cluster.name} runs Kubernetes {there}, and the inventory wants {cluster.kubernetes}"
    )
    if wanted[:2] < newest[:2]:
        raise RefusedError(
            f"{message}: an older one may not read what a newer one has written",
            hint=f'write "kubernetes": "{there}"; the way back is a snapshot from before the '
            "upgrade: docs/upgrading.md",
        )
    step = max(newest[:2], (major, minor + 1))
    if wanted[:2] > step:
        raise RefusedError(
            f"{message}: all masters go up by one minor version before any goes on",
            hint=f'write a version {step[0]}.{step[1]} as "kubernetes" first, and run '
            f"clusterctl up {cluster.inventory}",
        )


def _release(version: str) -> tuple[int, int, int] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _standings(
    cluster: Cluster, there: Mapping[str, Observed], known: Membership | None, *, formed: bool
) -> dict[str, Standing]:
    """What each machine that answers, and is to have an etcd member, is to the cluster's etcd.

    A new cluster is formed only when every one of its members' machines answered, and none has
    ever been part of a healthy one.

    Args:
        formed: whether any machine was ever part of a healthy cluster.
    """
    members = [m.name for m in cluster.etcd_members]
    standings = {n: standing(there[n], known, formed=formed) for n in members if n in there}
    missing = [name for name in members if name not in there]
    if missing and not formed:
        message = (
            f"{', '.join(missing)} cannot be looked at: a new cluster is formed only when every "
            "machine that is to have an etcd member answers, and none has one"
        )
        raise RefusedError(message, hint="clusterctl check says what is wrong with them")
    lost = [n for n, s in standings.items() if s in {Standing.WIPED, Standing.STRANGER}]
    if lost:
        why = "; ".join(f"{name} {standings[name].value}" for name in lost)
        message = (
            f"the cluster {cluster.name} exists, and {why}. Started as it is, it could lose what "
            "the cluster knows: nothing was done"
        )
        raise RefusedError(
            message,
            hint="put the machine's disk back if you can; if it is gone: "
            f"clusterctl node replace {cluster.inventory} {lost[0]}",
        )
    if unknown := [n for n, s in standings.items() if s is Standing.UNKNOWN]:
        message = (
            f"the cluster {cluster.name} exists, but {', '.join(unknown)} is empty, and no member "
            "of etcd has a quorum that could be asked about it: nothing was done"
        )
        raise RefusedError(
            message,
            hint="start the other members' machines; if they are gone for good: "
            f"clusterctl recover {cluster.inventory}",
        )
    new = [n for n, s in standings.items() if s is Standing.JOINER and known and not known.get(n)]
    if new and known and (reason := against_join(known)):
        message = f"{', '.join(new)} cannot join etcd now: {reason}"
        raise RefusedError(
            message,
            hint=f"repair {known.ailing[0]} first, or: "
            f"clusterctl node replace {cluster.inventory} {known.ailing[0]}",
        )
    return standings


def _refuse_restarts(
    cluster: Cluster,
    there: Mapping[str, Observed],
    known: Membership | None,
    machines: Mapping[str, MachinePlan],
) -> None:
    """Refuse a plan that would restart a member on which the quorum depends."""
    if known is None:
        return
    # Those that do not run are started first; without them nothing is restarted.
    coming = frozenset(n for n in machines if n in known.voters and not there[n].runs(ETCD))
    then = replace(known, healthy=known.healthy | coming)
    for name, plan in machines.items():
        etcd = plan.components.get("etcd")
        if etcd and etcd.restarts and (reason := against_restart(then, name)):
            causes = ", ".join(unit.reason for unit in etcd.units)
            message = f"etcd on {name} should be restarted ({causes}), but {reason}"
            raise RefusedError(
                message,
                hint=f"repair {then.ailing[0]} first, or: "
                f"clusterctl node replace {cluster.inventory} {then.ailing[0]}",
            )


def _alive(there: Mapping[str, Observed]) -> bool:
    """Whether a member has a quorum, as far as members were asked."""
    views = [view.etcd for view in there.values() if view.etcd]
    return not views or any(view.healthy for view in views)


def plan_machine(
    cluster: Cluster,
    machine: Machine,
    trust: Trust,
    observed: Observed,
    artifacts: ArtifactSet,
    now: datetime,
    *,
    etcd: Standing,
    nodes: Mapping[str, NodeView] | None,
    renewal: Renewal | None = None,
) -> MachinePlan:
    """All that `up` would do on a machine that answers.

    Args:
        etcd: what it is to the cluster's etcd.
        nodes: of the cluster; None when nobody can tell.
        renewal: what is to be issued again as well.
    """
    facts = observed.facts
    assert facts is not None  # noqa: S101 - it answered
    states = desired(cluster, machine, trust, facts)
    wanted = Wanted.of(states, cluster, trust)
    binaries = [binary for state in states.values() for binary in state.binaries]
    pins = {binary.path: artifacts.get(binary.artifact, facts.arch).pin for binary in binaries}
    missing = tuple(
        binary
        for binary in binaries
        if (there := observed.binaries.get(binary.path)) is None
        or there.pin != pins[binary.path]
        or not there.intact
    )
    images = artifacts.items.get((IMAGES, facts.arch))
    leaves = {
        leaf.cert_path: reason
        for state in states.values()
        for leaf in state.leaves
        if (reason := _why_issued(leaf, trust, observed, now, renewal))
    }
    # The old ones of these will not do until their readers notice by themselves.
    urgent = {path for path, reason in leaves.items() if not reason.startswith(DUE)}
    hashes = {file.path: file.sha256 for state in states.values() for file in state.files}
    hashes |= pins
    hashes |= {
        path: certificate_hash(pem)
        for path, pem in observed.certificates.items()
        if path not in leaves
    }
    # What a unit reads may be another component's.
    changed = {
        file.path: file.path
        for state in states.values()
        for file in state.files
        if not _same(file, observed.files.get(file.path))
    }
    changed |= {binary.path: binary.artifact for binary in missing}
    changed |= {path: f"certificate {path} ({reason})" for path, reason in leaves.items()}

    def planned(state: ComponentState) -> ComponentPlan:
        return _component_plan(state, observed, leaves, hashes, changed, urgent, wanted)

    components = {
        name: plan for name, state in states.items() if not (plan := planned(state)).empty
    }
    client = table.kubelet_client(cluster, machine)
    # Where nobody here can sign, it is a leaf as others are.
    asks = not cluster.certificates.external
    unfit = leaves.get(client.cert_path)
    if asks and machine.is_node and observed.registered:
        unfit = _why_issued(client, trust, observed, now, renewal, ours=False)
    registered = observed.registered and not (asks and unfit)
    if unfit:
        # kube-proxy uses it too, and looks for another only now and then.
        for name in ("kubelet", "kube-proxy"):
            if name not in states:
                continue
            components[name] = _with_restart(
                components.get(name, planned(states[name])),
                UnitChange(f"{name}.service", "restart", f"kubelet's client certificate: {unfit}"),
            )
    if "kubelet" in states and registered and nodes is not None and machine.name not in nodes:
        # Its Node was deleted; a kubelet registers only when it starts.
        components["kubelet"] = _with_restart(
            components.get("kubelet", planned(states["kubelet"])),
            UnitChange("kubelet.service", "restart", "its Node is gone"),
        )
    return MachinePlan(
        machine=machine.name,
        packages=tuple(
            sorted({p for s in states.values() for p in s.packages} - observed.packages)
        ),
        binaries=missing,
        images=machine.is_master and images is not None and images.pin not in observed.images,
        components={name: components[name] for name in states if name in components},
        remove=tuple(
            removal
            for removal in wanted.removals(observed.record)
            # What a manifest made in the cluster is deleted by its file: not before it.
            if nodes is not None or removal.component != "manifests"
        ),
        form_etcd=etcd is Standing.FOUNDER,
        join_etcd=etcd is Standing.JOINER,
        register=machine.is_node and not registered and asks,
        node=node_change(cluster, machine, (nodes or {}).get(machine.name))
        if machine.is_node
        else None,
    )


def _with_restart(plan: ComponentPlan, change: UnitChange) -> ComponentPlan:
    if any(unit.name == change.name for unit in plan.units):
        return plan
    return replace(plan, units=(*plan.units, change))


def leaf_problem(
    leaf: Leaf, trust: Trust, observed: Observed, now: datetime, *, ours: bool = True
) -> str | None:
    """Why a leaf must be issued; one that is not `ours` is renewed by its owner in good time."""
    pem = observed.certificates.get(leaf.cert_path)
    reason = problem(leaf, pem, trust, now, reserve=1 / 3 if ours else KUBELETS_RESERVE)
    if reason or not ours:
        return reason
    key = observed.files.get(leaf.key_path)
    if key is None:
        return "its key is missing"
    if not key.sha256:
        return "its key is not the one that we put there"
    if (key.mode, key.owner, key.group) != (0o600, leaf.owner, leaf.group):
        return f"its key is {key.mode:04o} {key.owner}:{key.group}: others may have read it"
    return None


def _why_issued(
    leaf: Leaf,
    trust: Trust,
    observed: Observed,
    now: datetime,
    renewal: Renewal | None,
    *,
    ours: bool = True,
) -> str | None:
    """Why a leaf is issued now, if it is."""
    reason = leaf_problem(leaf, trust, observed, now, ours=ours)
    if trust.external:
        in_time = reason is None or reason.startswith(DUE)
        if outside.ready(leaf, trust, observed, now):
            return SIGNED if in_time else reason
        # Nobody here can: that is no reason to stop.
        return None if in_time else reason
    if renewal and renewal.wants(leaf, observed.certificates.get(leaf.cert_path)):
        return "to be renewed"
    return reason


def _component_plan(
    state: ComponentState,
    observed: Observed,
    leaves: Mapping[str, str],
    hashes: Mapping[str, str],
    changed: Mapping[str, str],
    urgent: AbstractSet[str],
    wanted: Wanted,
) -> ComponentPlan:
    return ComponentPlan(
        state=state,
        directories=tuple(
            d for d in state.directories if not _same_directory(d, observed.files.get(d.path))
        ),
        files=tuple(
            FileChange(file, observed.files.get(file.path))
            for file in state.files
            if file.path in changed
        ),
        leaves=tuple(
            LeafChange(leaf, leaves[leaf.cert_path])
            for leaf in state.leaves
            if leaf.cert_path in leaves
        ),
        units=tuple(
            change
            for unit in state.units
            if (change := _unit_change(unit, state, observed, hashes, changed, urgent))
        ),
        record=wanted.lacking(state.name, observed.record),
        kept=wanted.kept(state.name, observed.record),
        hashes=hashes,
    )


def _same(file: HostFile, there: ObservedFile | None) -> bool:
    return there is not None and (
        there.kind,
        there.sha256,
        there.mode,
        there.owner,
        there.group,
    ) == ("file", file.sha256, file.mode, file.owner, file.group)


def _same_directory(directory: Directory, there: ObservedFile | None) -> bool:
    return there is not None and (there.kind, there.mode, there.owner, there.group) == (
        "directory",
        directory.mode,
        directory.owner,
        directory.group,
    )


def unit_digest(unit: Unit, state: ComponentState, hashes: Mapping[str, str]) -> str:
    """What a unit has read, as one hash; the machine's record keeps it once the unit runs.

    A run that was killed between writing a file and restarting its reader leaves the old digest
    behind, so that the next run restarts it.
    """
    lines = "".join(f"{path}\t{hashes.get(path, '')}\n" for path in sorted(reads(unit, state)))
    return hashlib.sha256(lines.encode()).hexdigest()


def certificate_hash(pem: str) -> str:
    return hashlib.sha256(pem.strip().encode()).hexdigest()


def _unit_change(
    unit: Unit,
    state: ComponentState,
    observed: Observed,
    hashes: Mapping[str, str],
    changed: Mapping[str, str],
    urgent: AbstractSet[str],
) -> UnitChange | None:
    there = observed.units.get(unit.name)
    enabled = there is not None and there.enabled == "enabled"
    if not unit.running:
        return None if enabled else UnitChange(unit.name, "enable", "is not enabled")
    if there is not None and there.active == "active" and there.lacks:
        # To start what systemd calls active does nothing.
        return UnitChange(unit.name, "restart", f"nftables has no table {there.lacks}")
    if there is None or not there.running:
        return UnitChange(unit.name, "start", "is not running")
    causes = [changed[path] for path in reads(unit, state) if path in changed]
    causes += [changed[path] for path in unit.rereads if path in urgent]
    if not causes and there.digest != unit_digest(unit, state, hashes):
        causes = ["it runs with older files"]
    if causes:
        # What the unit file itself says takes effect only with a new start.
        reload = unit.reload and f"{paths.UNITS}/{unit.name}" not in changed
        return UnitChange(unit.name, "reload" if reload else "restart", ", ".join(causes))
    return None if enabled else UnitChange(unit.name, "enable", "is not enabled")
