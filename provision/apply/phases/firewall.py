"""Change the firewall's rules so that they undo themselves on failure; remove the firewall."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import gevent

from provision.apply.change import ComponentChange
from provision.apply.checked import failure
from provision.apply.phases.components import change, changing, install
from provision.apply.phases.packages import PACKAGES
from provision.apply.phases.removal import prune, removing
from provision.apply.phases.run import Phase, Work
from provision.desired.components import firewall
from provision.model.cluster import Machine
from provision.model.errors import Failure, PhaseError, UnreachableError


def _firewall(work: Work) -> None:
    """Change the rules so that they undo themselves unless a new connection gets through."""
    engine, machines = work.session.engine, work.machines

    def everywhere(step: Callable[[Machine], Failure | None]) -> list[Failure]:
        jobs = [gevent.spawn(step, machine) for machine in machines]
        gevent.joinall(jobs, raise_error=True)
        return [job.value for job in jobs if job.value]

    def arm(machine: Machine) -> Failure | None:
        return failure(
            engine.shell(machine, firewall.ARM), machine, "a timer that undoes the rules"
        )

    def stay(machine: Machine) -> None:
        engine.shell(machine, firewall.STAY)

    def confirm(machine: Machine) -> Failure | None:
        step = "a new SSH connection"
        try:
            engine.connect_anew(machine)
            step = "enable the rules"
            problem = failure(engine.shell(machine, firewall.CONFIRM), machine, step)
        except UnreachableError as error:
            problem = Failure(machine.name, step, error.message)
        if problem:
            engine.shell(machine, f"{firewall.UNDO}; {firewall.DISARM}")
        return problem

    if failures := everywhere(arm):
        everywhere(stay)
        hint = "no rule was changed; systemd has to run here, and to let units be disabled"
        raise PhaseError("firewall", failures, hint=hint)
    changes = {m: [_unconfirmed(change(work.run, m, "firewall"))] for m in machines}
    install(work, changes)
    if failures := everywhere(confirm):
        hint = "the rules are gone again; firewall.ssh_from must have the address you come from"
        raise PhaseError("firewall", failures, hint=hint)


def _unconfirmed(planned: ComponentChange) -> ComponentChange:
    """The change without enabling units; `restart` also starts units that do not run."""
    return replace(planned, enable=(), start=(), restart=(*planned.start, *planned.restart))


FIREWALL = Phase("firewall", "what comes in", changing("firewall"), _firewall, after=(PACKAGES,))
REMOVE_FIREWALL = Phase(
    "remove firewall",
    "it is no longer wanted",
    removing(firewall=True),
    prune(firewall=True),
    after=(FIREWALL,),
)
