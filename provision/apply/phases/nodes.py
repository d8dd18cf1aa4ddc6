"""Kubelets and proxies, and what their Nodes are marked with."""

from __future__ import annotations

from provision.apply import addons
from provision.apply.phases.components import NODE, components
from provision.apply.phases.run import Phase, Run, kubectl
from provision.model.cluster import Machine


def _joining(run: Run) -> tuple[str, ...]:
    names = set(run.plan.touching(*NODE))
    names |= {name for name, p in run.plan.machines.items() if p.register or p.node}
    return tuple(name for name in run.plan.machines if name in names)


def _nodes(run: Run, machines: tuple[Machine, ...]) -> None:
    """Start kubelets and proxies; give the Nodes their roles; forget the token."""
    components("nodes", *NODE)(run, machines)
    leader = run.session.leader()
    changes = {m.name: c for m in machines if (c := run.plan.machines[m.name].node)}
    if changes:
        kubectl(run, leader, "labels and taints", addons.mark_nodes(changes))
    if run.token:
        kubectl(run, leader, "token", addons.forget_token(run.token.split(".")[0]))


NODES = Phase("nodes", "kubelets and proxies", _joining, _nodes)
