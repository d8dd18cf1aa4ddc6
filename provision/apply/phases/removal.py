"""Remove from the machines what is no longer wanted."""

from __future__ import annotations

from collections.abc import Callable

from provision.apply.deploys import remove_unwanted
from provision.apply.phases.run import Run, Work
from provision.model.cluster import Machine
from provision.plan.record import Removal


def removing(*, firewall: bool) -> Callable[[Run], tuple[str, ...]]:
    """The machines from which the firewall, or anything else, is removed."""
    return lambda run: tuple(name for name in run.plan.machines if _removals(run, name, firewall))


def prune(*, firewall: bool) -> Callable[[Work], None]:
    """Remove what is no longer wanted: the firewall, or everything else."""

    def run_phase(work: Work) -> None:
        def body(machine: Machine) -> None:
            remove_unwanted(removals=_removals(work.run, machine.name, firewall))

        work.on(body, work.machines)

    return run_phase


def _removals(run: Run, machine: str, firewall: bool) -> tuple[Removal, ...]:
    removals = run.plan.machines[machine].remove
    return tuple(r for r in removals if (r.component == "firewall") == firewall)
