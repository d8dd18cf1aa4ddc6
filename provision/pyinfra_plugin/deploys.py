"""A pyinfra deploy for each component, for a user's own pyinfra run: see docs/pyinfra.md.

Each deploy looks at its host, plans for this host alone with clusterctl's own functions, and
carries out the plan with the deploys that `up` uses too. Only `up` knows the order of components,
keeps the quorum, and lets members and nodes join. A deploy refuses changes that need these: see
`guards`.
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
from pyinfra.context import host, state

from provision import artifacts, inventory
from provision.apply.change import ComponentChange
from provision.apply.delivery_programs import Want
from provision.apply.deploys import install_artifacts, install_component, install_packages
from provision.apply.make_change import component_change
from provision.apply.session import probe
from provision.artifacts.model import ArtifactSet
from provision.desired import catalog
from provision.desired.model import Component
from provision.local.cache import Cache
from provision.local.operators import gone
from provision.local.progress import Silent
from provision.machines.locate import locate
from provision.machines.sources import source_of
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.errors import ClusterctlError, RefusedError, TrustError, UnreachableError
from provision.model.observed import Observed
from provision.observe.parse import parse
from provision.pki.trust import Trust
from provision.plan.external_authority import obtain, refuse_own_authority
from provision.plan.machine import plan_machine
from provision.plan.model import MachinePlan
from provision.plan.quorum import Standing
from provision.pyinfra_plugin.facts import MachineState
from provision.pyinfra_plugin.guards import (
    refuse_change,
    refuse_component,
    refuse_machine,
    refuse_own,
)

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
    path = _inventory()
    cluster, trust, cache = _cluster(path)
    machine = _machine(cluster)
    if not component.wanted(cluster, machine):
        return
    observed = _look(cluster, machine)
    facts = observed.facts
    assert facts is not None  # noqa: S101 - it answered
    holders = (h for h in (observed.holder, cache.holder()) if h and not gone(h))
    refuse_machine(cluster, trust, observed, next(holders, None))
    refuse_component(component, cluster, observed)
    ready = _artifacts(path, facts.arch)
    now = datetime.now(UTC)
    plan = plan_machine(
        cluster, machine, trust, observed, ready, now, etcd=Standing.MEMBER, nodes=None
    )
    together = [other.name for other in state.inventory.get_active_hosts()]
    refuse_change(component, cluster, observed, plan, ready, together)
    change = _change(component, plan, observed, cluster, trust, now)
    wanted = component.state(cluster, machine, trust, facts)
    if packages := tuple(p for p in wanted.packages if p in plan.packages):
        install_packages(packages=packages, os_family=facts.distribution.family)
    if binaries := [b for b in wanted.binaries if b in plan.binaries]:
        wants = [Want(b.artifact, b.path, facts.arch) for b in binaries]
        install_artifacts(
            items=tuple((ready.get(w.artifact, w.arch), w) for w in wants), proxy=cluster.proxy
        )
    install_component(change=change)


@deploy("Component")
def install_own_component(change: ComponentChange) -> None:
    """Carry out an operator's own change: put its files in place and start its units.

    Raises:
        DeployError: the change has the name of a component of clusterctl, or a record.
    """
    with _as_deploy_error():
        refuse_own(change)
        install_component(change=change)


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
def _cluster(path: Path) -> tuple[Cluster, Trust, Cache]:
    """The inventory's cluster, its keys from this computer's cache, and the cache.

    Raises:
        TrustError: this computer has no keys of the cluster.
        RefusedError: the inventory says that the authority is external, and it is not.
    """
    draft = inventory.read(path)
    cluster, kept, _ = locate(source_of(draft), draft)
    trust = kept.trust()
    if trust is None:
        message = f"this computer has no keys of {cluster.name}"
        raise TrustError(
            message,
            hint=f"{clusterctl('trust', 'fetch', path)}; {clusterctl('up', path)} makes a new cluster",
        )
    refuse_own_authority(cluster, trust)
    return cluster, trust, kept


@cache
def _artifacts(path: Path, arch: str) -> ArtifactSet:
    cluster, trust, _ = _cluster(path)
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
        sent = time.time()
        output = host.get_fact(MachineState, query=probe(cluster, machine))
        _seen[host] = parse(machine.name, output, sent, time.time())
    observed = _seen[host]
    if not observed.reachable:
        raise UnreachableError(observed.error, hint="is root needed? Set _sudo")
    return observed


@contextmanager
def _as_deploy_error() -> Iterator[None]:
    """Raise errors of clusterctl as errors of pyinfra, which shows them without a traceback."""
    try:
        yield
    except ClusterctlError as error:
        text = f"{error.message}\n{error.hint}" if error.hint else error.message
        raise DeployError(text) from None


DEPLOYS = {d.__name__: d for d in map(component_deploy, catalog.COMPONENTS)}
