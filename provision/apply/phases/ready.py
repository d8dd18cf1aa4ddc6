"""Wait until all nodes are Ready and DNS answers: everything else needs both."""

from __future__ import annotations

from functools import partial

from provision.apply import addons
from provision.apply.phases.nodes import NODES
from provision.apply.phases.prune import PRUNE
from provision.apply.phases.rollout import READY_TIMEOUT, rolled_out
from provision.apply.phases.run import Phase, Work, all_nodes, leader, run_kubectl


def _ready(work: Work) -> None:
    names = [machine.name for machine in work.machines]
    wait = addons.wait_for_nodes(names, READY_TIMEOUT)
    run_kubectl(work, work.run.look.leader(), "nodes Ready", wait)
    for name in names:
        work.progress.done(name)


READY = Phase("ready", "nodes Ready", all_nodes, _ready, after=(NODES, PRUNE))
DNS = Phase("dns", "names answered", leader, partial(rolled_out, dns=True), after=(READY,))
