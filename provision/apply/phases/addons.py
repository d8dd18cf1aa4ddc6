"""Add-ons, waited for until they are rolled out."""

from __future__ import annotations

from provision.apply import addons
from provision.apply.phases.run import Phase, Run, Work, kubectl, leader
from provision.desired.addons import Manifest, manifests
from provision.model.cluster import Machine

DNS = "coredns"
READY_TIMEOUT = 180  # seconds; kubelet's own limit for its runtime is 120


def deployed(run: Run) -> list[Manifest]:
    """The manifests that have a Deployment to wait for."""
    return [m for m in manifests(run.session.cluster, run.trust) if m.deployment]


def rolled_out(work: Work, leader: Machine, wanted: list[Manifest]) -> None:
    """Wait until these are rolled out.

    Raises:
        PhaseError: one of them was not in time.
    """
    # What was on a machine that is away comes back elsewhere after minutes, by Kubernetes' rules.
    if wanted and not work.plan.absent:
        names = [m.deployment for m in wanted]
        kubectl(work, leader, "add-ons", addons.wait_for_deployments(names, READY_TIMEOUT))


def _addons(work: Work) -> None:
    """All but DNS; metrics-server is ready only after it has scraped every node twice."""
    (leader,) = work.machines
    rolled_out(work, leader, [m for m in deployed(work.run) if m.name != DNS])
    work.progress.done(leader.name)


ADDONS = Phase("add-ons", "rolled out", leader, _addons)
