"""All nodes Ready, and names are answered: what everything else needs."""

from __future__ import annotations

from provision.apply import addons
from provision.apply.phases.addons import DNS, READY_TIMEOUT, deployed, rolled_out
from provision.apply.phases.run import Phase, Work, all_nodes, kubectl


def _ready(work: Work) -> None:
    leader = work.run.look.leader()
    names = [m.name for m in work.machines]
    kubectl(work, leader, "nodes Ready", addons.wait_for_nodes(names, READY_TIMEOUT))
    rolled_out(work, leader, [m for m in deployed(work.run) if m.name == DNS])
    for name in names:
        work.progress.done(name)


READY = Phase("ready", "nodes Ready, names answered", all_nodes, _ready)
