"""Apiservers, controllers, schedulers, and the components that run beside them."""

from __future__ import annotations

from provision.apply.phases.apiserver import without_apiserver
from provision.apply.phases.components import CONTROL_PLANE as COMPONENTS
from provision.apply.phases.components import MASTER, change, changing, components, install
from provision.apply.phases.etcd import ETCD
from provision.apply.phases.run import Phase, Run, Work, is_control_plane
from provision.apply.phases.services import SERVICES


def _changing(run: Run) -> tuple[str, ...]:
    return tuple(name for name in run.plan.touching(*MASTER) if is_control_plane(run, name))


def _one_after_the_other(work: Work) -> None:
    """Change all but the kubelet, on one master after the other: the others serve requests."""
    for machine in work.machines:
        with without_apiserver(work, [machine]):
            changes = [change(work.run, machine, name) for name in MASTER]
            install(work, {machine: changes})


CONTROL_PLANE = Phase(
    "control plane",
    "apiservers, controllers, schedulers",
    changing(*COMPONENTS),
    components(*COMPONENTS, rolling=True),
    after=(ETCD,),
    after_here=(SERVICES,),
    each=True,
)
RENEW_CONTROL_PLANE = Phase(
    "control plane", "one machine after the other", _changing, _one_after_the_other
)
