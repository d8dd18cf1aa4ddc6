"""All nodes Ready, and names are answered: what everything else needs."""

from __future__ import annotations

from provision.apply import addons
from provision.apply.phases.addons import DNS, READY_TIMEOUT, deployed, rolled_out
from provision.apply.phases.run import Phase, Run, all_nodes, kubectl
from provision.model.cluster import Machine


def _ready(run: Run, machines: tuple[Machine, ...]) -> None:
    leader = run.session.leader()
    names = [m.name for m in machines]
    kubectl(run, leader, "nodes Ready", addons.wait_for_nodes(names, READY_TIMEOUT))
    rolled_out(run, leader, [m for m in deployed(run) if m.name == DNS])
    for name in names:
        run.session.progress.done(name)


READY = Phase("ready", "nodes Ready, names answered", all_nodes, _ready)
