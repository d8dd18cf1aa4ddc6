"""Packages of the distribution."""

from __future__ import annotations

from provision.apply.deploys import install_packages
from provision.apply.phases.run import Phase, Run
from provision.model.cluster import Machine


def _lacking(run: Run) -> tuple[str, ...]:
    return tuple(name for name, plan in run.plan.machines.items() if plan.packages)


def _install(run: Run, machines: tuple[Machine, ...]) -> None:
    def body(machine: Machine) -> None:
        install_packages(
            packages=run.plan.machines[machine.name].packages,
            os_family=run.session.facts(machine).os_family,
        )

    run.session.engine.run("packages", body, machines, run.session.progress)


PACKAGES = Phase("packages", "from the distribution", _lacking, _install)
