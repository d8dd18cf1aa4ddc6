"""Check that the cluster works: names, pods and Services, from every node."""

from __future__ import annotations

from provision.apply.phases.ready import READY
from provision.apply.phases.run import Phase, Work, all_nodes
from provision.apply.verify import verify


def _verify(work: Work) -> None:
    # The leader is checked too, and the pod of a single node needs one on another node to talk to.
    verify(work.session, {*work.plan.machines, work.run.look.leader().name}, work.progress)


VERIFY = Phase(
    "verify", "names, pods and Services, from every node", all_nodes, _verify, after=(READY,)
)
