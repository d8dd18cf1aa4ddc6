"""What workers that join by themselves are given."""

from __future__ import annotations

from provision.apply.phases.run import Phase, Run, leader
from provision.artifacts import compressed
from provision.machines import Cloud
from provision.model.cluster import Machine


def _offering(run: Run) -> tuple[str, ...]:
    return leader(run) if run.plan.join else ()


def _offer(run: Run, machines: tuple[Machine, ...]) -> None:
    """Offer the bundle; the masters already have the rules by which they let such workers in."""
    session, bundle = run.session, run.bundle
    if bundle is None or not isinstance(session.source, Cloud):
        return
    files = {ready.pin: compressed(ready) for ready in bundle.artifacts}
    session.source.offer(session.draft, bundle.program, files, session.progress)
    session.progress.done(machines[0].name)


GROUP = Phase("group", "what workers that join by themselves are given", _offering, _offer)
