"""The cluster does its work: names, pods and Services, from every node."""

from __future__ import annotations

from provision.apply.phases.run import Phase, Run, all_nodes
from provision.apply.verify import verify
from provision.model.cluster import Machine


def _verify(run: Run, machines: tuple[Machine, ...]) -> None:
    # The leader's answer counts too, and one node alone needs a pod on another to talk to.
    verify(run.session, {*run.plan.machines, run.session.leader().name})


VERIFY = Phase("verify", "names, pods and Services, from every node", all_nodes, _verify)
