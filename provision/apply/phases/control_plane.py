"""Apiservers, controllers, schedulers, and what runs beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import gevent

from provision.apply.checked import checked
from provision.apply.phases.components import CONTROL_PLANE as COMPONENTS
from provision.apply.phases.components import MASTER, change, changing, components, install
from provision.apply.phases.run import Phase, Run, Work
from provision.model.cluster import Machine
from provision.model.errors import UnreachableError

_LAST_WORD = 3  # seconds for a machine to be told something when the run ends
_START = "systemctl --no-block start kube-apiserver.service"


def is_control_plane(run: Run, name: str) -> bool:
    """Whether this machine is a master or a member of etcd."""
    machine = run.session.cluster.machine(name)
    return machine.is_master or machine.has_etcd


@contextmanager
def without_apiserver(work: Work, batch: Sequence[Machine]) -> Iterator[None]:
    """Stop apiservers in good order while the member that they use is restarted."""

    def restarts(machine: Machine) -> bool:
        plan = work.plan.machines[machine.name].components.get("etcd")
        return plan is not None and plan.restarts

    def systemctl(verb: str) -> None:
        for machine in mine:
            work.progress.update(machine.name, f"{verb} kube-apiserver")
            command = f"systemctl {verb} kube-apiserver.service"
            checked(work.session.engine.shell(machine, command), machine, "etcd", command)

    mine = [m for m in batch if work.plan.running and m.is_master and m.has_etcd and restarts(m)]
    try:
        systemctl("stop")
        yield
    except BaseException:
        # Also at Ctrl-C: a member that comes back would have no apiserver until the next `up`.
        for machine in mine:
            with gevent.Timeout(_LAST_WORD, False), suppress(UnreachableError):
                work.session.engine.shell(machine, _START)
        raise
    systemctl("start")


def _changing(run: Run) -> tuple[str, ...]:
    return tuple(name for name in run.plan.touching(*MASTER) if is_control_plane(run, name))


def _one_after_the_other(work: Work) -> None:
    """All but the kubelet, on one master after the other: requests reach another one meanwhile."""
    for machine in work.machines:
        with without_apiserver(work, [machine]):
            changes = [change(work.run, machine, name) for name in MASTER]
            install(work, {machine: changes})


CONTROL_PLANE = Phase(
    "control plane",
    "apiservers, controllers, schedulers",
    changing(*COMPONENTS),
    components(*COMPONENTS, rolling=True),
)
RENEW_CONTROL_PLANE = Phase(
    "control plane", "one machine after the other", _changing, _one_after_the_other
)
