"""Packages of the distribution."""

from __future__ import annotations

from provision.apply.deploys import install_packages
from provision.apply.phases.run import Phase, Run, Work
from provision.model.cluster import Machine


def _lacking(run: Run) -> tuple[str, ...]:
    return tuple(name for name, plan in run.plan.machines.items() if plan.packages)


def _install(work: Work) -> None:
    def body(machine: Machine) -> None:
        install_packages(
            packages=work.plan.machines[machine.name].packages,
            os_family=work.run.look.facts(machine).distribution.family,
        )

    work.on(body, work.machines)


PACKAGES = Phase("packages", "from the distribution", _lacking, _install)
