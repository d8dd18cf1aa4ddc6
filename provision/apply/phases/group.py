"""Offer workers that join by themselves what they need."""

from __future__ import annotations

from provision.apply.phases.addons import ADDONS
from provision.apply.phases.ready import DNS
from provision.apply.phases.run import Phase, Run, Work, leader
from provision.apply.phases.verify import VERIFY
from provision.artifacts import compressed
from provision.machines import Cloud


def _offering(run: Run) -> tuple[str, ...]:
    return leader(run) if run.plan.join else ()


def _offer(work: Work) -> None:
    """Offer the bundle. The masters already have the rules that let such workers join."""
    session, bundle = work.session, work.run.bundle
    if bundle is None or not isinstance(session.source, Cloud):
        return
    files = {ready.pin: compressed(ready) for ready in bundle.artifacts}
    session.source.offer(session.draft, bundle.program, files, work.progress)
    work.progress.done(work.machines[0].name)


GROUP = Phase(
    "group",
    "what workers that join by themselves are given",
    _offering,
    _offer,
    after=(DNS, VERIFY, ADDONS),
)
