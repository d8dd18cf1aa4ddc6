"""Wait until the add-ons that have a Deployment are rolled out."""

from __future__ import annotations

from provision.apply import addons
from provision.apply.phases.run import Work, run_kubectl
from provision.desired.addons import deployments

DNS = "coredns"
READY_TIMEOUT = 180  # seconds; kubelet's own limit for its runtime is 120


def rolled_out(work: Work, *, dns: bool) -> None:
    """Wait until DNS, or every other add-on, is rolled out.

    Raises:
        PhaseError: one of them was not rolled out in time.
    """
    names = [
        deployment
        for name, deployment in deployments(work.session.cluster).items()
        if (name == DNS) == dns
    ]
    (leader,) = work.machines
    # Kubernetes starts the pods of an unreachable machine elsewhere only after minutes, and a copy
    # that wants a node of its own waits until a cordoned node takes pods again.
    api = work.run.look.api()
    cordoned = api is not None and any(node.unschedulable for node in api.nodes)
    if names and not work.plan.absent and not cordoned:
        run_kubectl(work, leader, "add-ons", addons.wait_for_deployments(names, READY_TIMEOUT))
    work.progress.done(leader.name)
