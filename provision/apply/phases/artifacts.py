"""Deliver binaries and images to the machines."""

from __future__ import annotations

from provision.apply.delivery import deliver
from provision.apply.delivery_programs import Want
from provision.apply.phases.firewall import FIREWALL, REMOVE_FIREWALL
from provision.apply.phases.packages import PACKAGES
from provision.apply.phases.run import Phase, Run, Work
from provision.artifacts.images import IMAGES
from provision.model import paths


def _lacking(run: Run) -> tuple[str, ...]:
    return tuple(name for name, p in run.plan.machines.items() if p.binaries or p.images)


def _deliver(work: Work) -> None:
    wants = {}
    for machine in work.machines:
        plan = work.plan.machines[machine.name]
        arch = work.run.look.facts(machine).arch
        wants[machine.name] = tuple(
            Want(binary.artifact, binary.path, arch) for binary in plan.binaries
        ) + ((Want(IMAGES, paths.REGISTRY, arch),) if plan.images else ())
    deliver(work.session.engine, wants, work.run.artifacts, work.progress, work.finished)


ARTIFACTS = Phase(
    "artifacts",
    "binaries and images to the machines",
    _lacking,
    _deliver,
    # Machines fetch artifacts from each other: the firewall must allow that first.
    after=(PACKAGES, FIREWALL, REMOVE_FIREWALL),
)
