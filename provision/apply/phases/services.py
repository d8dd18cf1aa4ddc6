"""The services of every machine beside the control plane: container runtime, proxies, routes."""

from __future__ import annotations

from provision.apply.phases.artifacts import ARTIFACTS
from provision.apply.phases.components import SERVICES as COMPONENTS
from provision.apply.phases.components import changing, components
from provision.apply.phases.run import Phase, Run, is_control_plane


def _elsewhere(run: Run) -> tuple[str, ...]:
    names = run.plan.touching(*COMPONENTS)
    return tuple(name for name in names if not is_control_plane(run, name))


SERVICES = Phase(
    "services",
    "container runtime, proxies and routes",
    changing(*COMPONENTS),
    components(*COMPONENTS),
    after_here=(ARTIFACTS,),
    each=True,
)
RENEW_SERVICES = Phase(
    "services",
    "the other nodes' runtimes and proxies",
    _elsewhere,
    components(*COMPONENTS),
)
