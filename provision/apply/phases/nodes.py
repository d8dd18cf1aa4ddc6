"""Kubelets and proxies, and the labels and taints of their Nodes."""

from __future__ import annotations

from provision.apply import addons
from provision.apply.phases.components import NODE, components
from provision.apply.phases.control_plane import CONTROL_PLANE
from provision.apply.phases.objects import OBJECTS
from provision.apply.phases.run import Phase, Run, Work, run_kubectl
from provision.apply.phases.services import SERVICES


def _joining(run: Run) -> tuple[str, ...]:
    names = set(run.plan.touching(*NODE))
    names |= {name for name, p in run.plan.machines.items() if p.register or p.node}
    return tuple(name for name in run.plan.machines if name in names)


def _nodes(work: Work) -> None:
    """Start kubelets and proxies; set the Nodes' labels and taints; delete the token."""
    components(*NODE)(work)
    leader, token = work.run.look.leader(), work.run.token
    changes = {m.name: c for m in work.machines if (c := work.plan.machines[m.name].node)}
    if changes:
        run_kubectl(work, leader, "labels and taints", addons.mark_nodes(changes))
    if token:
        run_kubectl(work, leader, "token", addons.forget_token(token.split(".")[0]))


NODES = Phase(
    "nodes",
    "kubelets and proxies",
    _joining,
    _nodes,
    after=(OBJECTS,),
    after_here=(SERVICES, CONTROL_PLANE),
)
