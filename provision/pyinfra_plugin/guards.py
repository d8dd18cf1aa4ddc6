"""What a deploy for plain pyinfra refuses: the guards of `up`, for one machine.

A deploy sees its own machine only. It makes the checks of `up` that one machine can answer. It
refuses changes for which `up` looks at other machines, waits for them, or can undo the change.
"""

from __future__ import annotations

from collections.abc import Collection

from provision.apply.change import ComponentChange
from provision.artifacts.model import ArtifactSet
from provision.desired import catalog
from provision.desired.model import Component, ComponentPhase
from provision.local.operators import taken
from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.errors import PreflightError, RefusedError
from provision.model.holder import Holder
from provision.model.observed import Observed
from provision.pki.trust import Trust
from provision.plan.model import ComponentPlan, MachinePlan
from provision.plan.preflight import preflight
from provision.plan.refuse import refuse_unfinished_restore


def refuse_machine(
    cluster: Cluster, trust: Trust, observed: Observed, holder: Holder | None
) -> None:
    """Check the machine, its cluster, and the keys of this computer.

    Args:
        holder: another operator who changes the cluster now.

    Raises:
        PreflightError: the machine is not fit; with all its faults.
        RefusedError: another operator is at work, a restore did not finish, or the keys are old.
    """
    if holder:
        raise taken(holder, cluster.inventory)
    name = observed.machine
    findings = preflight(cluster, {name: observed}, trust.fingerprint)
    if fatal := [finding for finding in findings if finding.fatal]:
        raise PreflightError(f"{name} is not fit; nothing was touched", fatal)
    refuse_unfinished_restore(cluster, {name: observed})
    if observed.trust and observed.trust[0] > trust.generation:
        message = f"{name} has newer keys than this computer"
        raise RefusedError(message, hint=clusterctl("trust", "fetch", cluster.inventory))


def refuse_component(component: Component, cluster: Cluster, observed: Observed) -> None:
    """Refuse a component that no deploy can change here, whatever the change is.

    Raises:
        RefusedError: the hint is the command to use instead.
    """
    if component.phase is ComponentPhase.FIREWALL:
        raise _use_up(
            cluster,
            f"refusing to change the firewall of {observed.machine}: wrong rules would lock you out, "
            "and only `up` tests a new SSH connection and undoes them",
        )
    if component.phase is ComponentPhase.ETCD and not (observed.etcd_data and observed.etcd_formed):
        raise _use_up(
            cluster,
            f"{observed.machine} has no etcd data: a member is formed or joined with the others",
        )


def refuse_change(
    component: Component,
    cluster: Cluster,
    observed: Observed,
    plan: MachinePlan,
    ready: ArtifactSet,
    together: Collection[str],
) -> None:
    """Refuse a change that only `up` can make safely.

    Args:
        plan: of this machine, with all its components.
        ready: the artifacts of the plan.
        together: names of all machines of this pyinfra run.

    Raises:
        RefusedError: the hint is the command to use instead.
    """
    name, change = observed.machine, plan.components.get(component.name)
    _refuse_upgrade(cluster, observed, change, plan, ready)
    if component.phase is ComponentPhase.ETCD and change and change.restarts:
        causes = ", ".join(unit.reason for unit in change.units)
        raise _use_up(
            cluster,
            f"etcd on {name} needs a restart ({causes}): first the other members must be healthy, "
            "and the apiserver on its machine must stop",
        )
    if component.phase is ComponentPhase.NODES and plan.register:
        raise _use_up(
            cluster,
            f"the kubelet of {name} has no valid client certificate: it joins with a one-time token",
        )
    masters = [m.name for m in cluster.masters if m.name in together]
    if component.phase is ComponentPhase.CONTROL_PLANE and len(masters) > 1 and _interrupts(change):
        raise RefusedError(
            f"{component.name} restarts on {name}, and this run has {len(masters)} masters: pyinfra "
            "would restart all at once, or go on after a failure",
            hint=f"run it on one master after the other: pyinfra --limit {masters[0]} ...; "
            f"{clusterctl('up', cluster.inventory)} does that, and stops at a failure",
        )


def refuse_own(change: ComponentChange) -> None:
    """Refuse an operator's own change that could be taken for one of clusterctl.

    Raises:
        RefusedError: the change has the name of a component, or a record.
    """
    if change.component in {component.name for component in catalog.COMPONENTS}:
        name = change.component.replace("-", "_")
        raise RefusedError(
            f"{change.component} is a component of clusterctl: a change of your own needs another "
            "name",
            hint=f"provision.pyinfra_plugin.{name} makes the change of the inventory",
        )
    if change.record or change.record_before:
        raise RefusedError(
            f"the change {change.component} has a record: `up` would remove what the record names",
            hint="leave out `record` and `record_before`",
        )


def _use_up(cluster: Cluster, reason: str) -> RefusedError:
    return RefusedError(reason, hint=f"use {clusterctl('up', cluster.inventory)}")


def _refuse_upgrade(
    cluster: Cluster,
    observed: Observed,
    change: ComponentPlan | None,
    plan: MachinePlan,
    ready: ArtifactSet,
) -> None:
    """An upgrade of Kubernetes has an order, from apiservers to kubelets, and limits."""
    if change is None or observed.facts is None:
        return
    for binary in change.state.binaries:
        there = observed.binaries.get(binary.path)
        if there is None or binary not in plan.binaries or not _is_kubernetes(binary.artifact):
            continue
        version = ready.get(binary.artifact, observed.facts.arch).version
        if there.version != version:
            raise _use_up(
                cluster,
                f"{binary.path} on {observed.machine} is {there.version}, and the inventory wants "
                f"{version}: an upgrade needs the order of all machines",
            )


def _is_kubernetes(artifact: str) -> bool:
    return artifact.startswith("kubernetes/")


def _interrupts(change: ComponentPlan | None) -> bool:
    return change is not None and any(u.action in {"restart", "reload"} for u in change.units)
