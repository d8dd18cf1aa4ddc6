"""A pyinfra deploy for each component, for a user's own pyinfra run: see docs/pyinfra.md.

Each deploy looks at its host, plans for this host alone with clusterctl's own functions, and
carries out the plan with the deploys that `up` uses too. Only `up` knows the order of components,
keeps the quorum, and lets members and nodes join. A deploy refuses changes that need these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pyinfra.api.deploy import deploy
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.context import host

from provision import artifacts, inventory
from provision.apply.change import ComponentChange
from provision.apply.delivery_programs import Want
from provision.apply.deploys import install_artifacts, install_component, install_packages
from provision.apply.make_change import component_change
from provision.artifacts.model import ArtifactSet
from provision.desired import catalog
from provision.desired.model import Component
from provision.local.progress import Silent
from provision.machines.locate import locate
from provision.machines.sources import source_of
from provision.model.cluster import Cluster, Machine
from provision.model.errors import ClusterctlError, RefusedError, TrustError, UnreachableError
from provision.model.observed import Observed
from provision.observe import script
from provision.observe.parse import parse
from provision.pki.trust import Trust
from provision.plan.external_authority import obtain
from provision.plan.machine import plan_machine
from provision.plan.model import MachinePlan
from provision.plan.quorum import Standing
from provision.pyinfra_plugin.facts import MachineState

INVENTORY = "clusterctl_inventory"

# A run looks at each machine once: while pyinfra prepares, before it changes anything.
_seen: WeakKeyDictionary[Host, Observed] = WeakKeyDictionary()


def component_deploy(component: Component) -> Callable[..., Any]:
    """The deploy of a component; it takes no arguments of its own."""

    def bring() -> None:
        with _as_deploy_error():
            _bring(component)

    bring.__name__ = component.name.replace("-", "_")
    bring.__doc__ = f"{component.name}: {component.summary}."
    return deploy(component.name)(bring)


def _bring(component: Component) -> None:
    cluster, trust = _cluster(_inventory())
    machine = _machine(cluster)
    if not component.wanted(cluster, machine):
        return
    observed = _look(cluster, machine)
    _refuse(component, cluster, trust, observed)
    facts = observed.facts
    assert facts is not None  # noqa: S101 - it answered
    ready = _artifacts(_inventory(), facts.arch)
    state = component.state(cluster, machine, trust, facts)
    now = datetime.now(UTC)
    plan = plan_machine(
        cluster, machine, trust, observed, ready, now, etcd=Standing.MEMBER, nodes=None
    )
    if packages := tuple(p for p in state.packages if p in plan.packages):
        install_packages(packages=packages, os_family=facts.os_family)
    if binaries := [b for b in state.binaries if b in plan.binaries]:
        wants = [Want(b.artifact, b.path, facts.arch) for b in binaries]
        install_artifacts(
            items=tuple((ready.get(w.artifact, w.arch), w) for w in wants), proxy=cluster.proxy
        )
    install_component(change=_change(component, plan, observed, cluster, trust, now))


def _change(
    component: Component,
    plan: MachinePlan,
    observed: Observed,
    cluster: Cluster,
    trust: Trust,
    now: datetime,
) -> ComponentChange:
    wanted = plan.components.get(component.name)
    if wanted is None:
        return ComponentChange(component=component.name)
    issued = tuple(obtain(change.leaf, trust, observed, now) for change in wanted.leaves)
    return component_change(wanted, issued, observed, cluster, trust)


def _inventory() -> Path:
    named = host.data.get(INVENTORY)
    if not named:
        raise RefusedError(
            "pyinfra does not say which inventory this is",
            hint="name it: pyinfra @clusterctl/INVENTORY ..., or "
            f"pyinfra INVENTORY --data {INVENTORY}=INVENTORY ...",
        )
    return Path(named).resolve()


@cache
def _cluster(path: Path) -> tuple[Cluster, Trust]:
    """The inventory's cluster, and its keys from this computer's cache.

    Raises:
        TrustError: this computer has no keys of the cluster.
    """
    draft = inventory.read(path)
    cluster, kept, _ = locate(source_of(draft), draft)
    trust = kept.trust()
    if trust is None:
        message = f"this computer has no keys of {cluster.name}"
        raise TrustError(
            message, hint=f"clusterctl trust fetch {path}; clusterctl up {path} makes a new cluster"
        )
    return cluster, trust


@cache
def _artifacts(path: Path, arch: str) -> ArtifactSet:
    cluster, trust = _cluster(path)
    wanted = tuple((name, arch) for name in catalog.artifacts_of(cluster, trust))
    return artifacts.prepare(cluster.artifacts, cluster.kubernetes, wanted, Silent())


def _machine(cluster: Cluster) -> Machine:
    try:
        return cluster.machine(host.name)
    except KeyError:
        message = f"{host.name} is not a machine of {cluster.name}"
        raise RefusedError(
            message, hint=f"it has {', '.join(m.name for m in cluster.machines)}"
        ) from None


def _look(cluster: Cluster, machine: Machine) -> Observed:
    """The machine's state now.

    Raises:
        UnreachableError: the probe gave no answer.
    """
    if host not in _seen:
        query = script.query(cluster, machine, units=catalog.UNITS, packages=catalog.PACKAGES)
        sent = time.time()
        output = host.get_fact(MachineState, query=query)
        _seen[host] = parse(machine.name, output, sent, time.time())
    observed = _seen[host]
    if not observed.reachable:
        raise UnreachableError(observed.error, hint="is root needed? Set _sudo")
    return observed


def _refuse(component: Component, cluster: Cluster, trust: Trust, observed: Observed) -> None:
    """Refuse a change that needs a look at the whole cluster.

    Raises:
        RefusedError: the change needs it. The hint is the command to use instead.
    """
    up = f"clusterctl up {cluster.inventory}"
    if observed.fingerprint and observed.fingerprint != trust.fingerprint:
        message = f"{observed.machine} belongs to another cluster: {observed.cluster}"
        raise RefusedError(message, hint=f"clusterctl check {cluster.inventory} says more")
    if observed.trust and observed.trust[0] > trust.generation:
        message = f"{observed.machine} has newer keys than this computer"
        raise RefusedError(message, hint=f"clusterctl trust fetch {cluster.inventory}")
    if observed.holder:
        message = f"another operator is changing this cluster: {observed.holder}"
        raise RefusedError(message, hint="wait until it has finished")
    if component.name == "firewall":
        message = (
            f"refusing to change the firewall of {observed.machine}: wrong rules would lock you out, "
            "and this deploy cannot undo them"
        )
        raise RefusedError(message, hint=f"{up} changes the rules, and tests a new SSH connection")
    if component.name == "etcd" and not (observed.etcd_data and observed.etcd_formed):
        message = (
            f"{observed.machine} has no etcd data: a member is formed or joined with the others"
        )
        raise RefusedError(message, hint=f"{up} does it")
    asks = not cluster.certificates.external
    if component.name == "kubelet" and asks and not observed.registered:
        message = f"{observed.machine} is no node yet: a kubelet joins with a one-time token"
        raise RefusedError(message, hint=f"{up} does it")


@contextmanager
def _as_deploy_error() -> Iterator[None]:
    """Raise errors of clusterctl as errors of pyinfra, which shows them without a traceback."""
    try:
        yield
    except ClusterctlError as error:
        text = f"{error.message}\n{error.hint}" if error.hint else error.message
        raise DeployError(text) from None


DEPLOYS = {d.__name__: d for d in map(component_deploy, catalog.COMPONENTS)}
