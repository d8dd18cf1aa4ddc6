"""Binaries and images to the machines."""

from __future__ import annotations

from provision.apply.delivery import IMAGES, Want, deliver
from provision.apply.phases.run import Phase, Run
from provision.model import paths
from provision.model.cluster import Machine


def _lacking(run: Run) -> tuple[str, ...]:
    return tuple(name for name, p in run.plan.machines.items() if p.binaries or p.images)


def _deliver(run: Run, machines: tuple[Machine, ...]) -> None:
    wants = {}
    for machine in machines:
        plan = run.plan.machines[machine.name]
        arch = run.session.facts(machine).arch
        wants[machine.name] = tuple(
            Want(binary.artifact, binary.path, arch) for binary in plan.binaries
        ) + ((Want(IMAGES, paths.REGISTRY, arch),) if plan.images else ())
    deliver(run.session.engine, wants, run.artifacts, run.session.progress)


ARTIFACTS = Phase("artifacts", "binaries and images to the machines", _lacking, _deliver)
