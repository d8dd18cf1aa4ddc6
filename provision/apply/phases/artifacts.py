"""Deliver binaries and images to the machines."""

from __future__ import annotations

from provision.apply.delivery import deliver
from provision.apply.delivery_programs import Want
from provision.apply.phases.firewall import FIREWALL, REMOVE_FIREWALL
from provision.apply.phases.packages import PACKAGES
from provision.apply.phases.run import Phase, Run, Work
from provision.apply.user_images import copy_images
from provision.artifacts.images import IMAGES
from provision.model import paths
from provision.model.cluster import Machine


def _lacking(run: Run) -> tuple[str, ...]:
    return tuple(
        name for name, p in run.plan.machines.items() if p.binaries or p.images or p.user_images
    )


def _deliver(work: Work) -> None:
    wants = {}
    plans = {machine.name: work.plan.machines[machine.name] for machine in work.machines}
    missing = {name: plan.user_images for name, plan in plans.items() if plan.user_images}

    def finished(machine: Machine) -> None:
        if machine.name not in missing:
            work.finished(machine)

    for machine in work.machines:
        plan = plans[machine.name]
        arch = work.run.look.facts(machine).arch
        wants[machine.name] = tuple(
            Want(binary.artifact, binary.path, arch) for binary in plan.binaries
        ) + ((Want(IMAGES, paths.REGISTRY, arch),) if plan.images else ())
    if any(wants.values()):
        deliver(work.session.engine, wants, work.run.artifacts, work.progress, finished)
    copy_images("artifacts", work.session.engine, missing)
    for machine in work.machines:
        if machine.name in missing:
            work.progress.done(machine.name)
            work.finished(machine)


ARTIFACTS = Phase(
    "artifacts",
    "binaries and images to the machines",
    _lacking,
    _deliver,
    # Machines fetch artifacts from each other: the firewall must allow that first.
    after=(PACKAGES, FIREWALL, REMOVE_FIREWALL),
)
