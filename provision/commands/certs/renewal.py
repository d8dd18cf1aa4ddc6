"""Issue the certificates of a cluster again: on request, or because all have expired.

Plan and phases are those of `up`, except that installed artifacts stay: none is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from provision.apply.phases import RENEW, UP, Run, execute
from provision.apply.session import Session
from provision.apply.unfinished import marked
from provision.artifacts.model import ArtifactSet, Ready
from provision.commands import converge
from provision.desired.catalog import desired
from provision.local import private_file
from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError
from provision.model.look import Look
from provision.pki import table
from provision.pki.trust import Trust
from provision.plan.make import make_plan
from provision.plan.model import Plan, Renewal

# A renewal that was stopped is continued within a day; after that, the operator wants a new one.
_FORGOTTEN = timedelta(days=1)


@dataclass(frozen=True)
class Report:
    """What was issued.

    Attributes:
        issued: machine -> names of leaves.
        seconds: phase -> wall time.
        took: wall seconds from the command's start until the cluster was changed.
    """

    issued: dict[str, tuple[str, ...]]
    seconds: dict[str, float] = field(default_factory=dict)
    took: float = 0.0


def look_at_existing(session: Session) -> tuple[Look, Trust]:
    """Look at all machines of a cluster that exists.

    Raises:
        RefusedError: there is no cluster yet.
        PreflightError: a machine is not fit.
    """
    look = converge.look_at_all(session)
    converge.check(session, look)
    trust = session.known_trust(look)
    if trust is None or not look.installed:
        message = f"there is no cluster {session.cluster.name} yet"
        raise RefusedError(message, hint=clusterctl("up", session.cluster.inventory))
    return look, trust


def prepare(session: Session, names: frozenset[str], *, now: datetime | None = None) -> Run:
    """Plan to issue these leaves again; touches nothing.

    Args:
        names: of leaves; empty: all.
        now: None: the present.

    Raises:
        RefusedError: no leaf has such a name, or the cluster is not as its inventory says.
    """
    now = now or datetime.now(UTC)
    look, trust = look_at_existing(session)
    refuse_unknown(session.cluster, names)
    installed = as_installed(look, trust)
    begun = _begun(_memory(session), names, now)
    renewal = Renewal(names, begun or now)
    if begun:
        session.progress.note(
            f"continues the renewal begun on {begun:%Y-%m-%d %H:%M} UTC: certificates issued since "
            "then are not issued again"
        )
    else:
        plan = make_plan(session.cluster, trust, look, installed, now)
        refuse_unfinished(session, plan)
    plan = make_plan(session.cluster, trust, look, installed, now, renewal)
    return Run(session, look, trust, installed, plan, now)


def renew(run: Run, names: frozenset[str]) -> Report:
    """Issue certificates on one machine after the other; each is healthy before the next begins.

    A run that was stopped continues with the remaining ones, within a day.

    Args:
        run: from `prepare`, for the same names.

    Raises:
        PhaseError: with every machine that failed in the phase that failed.
    """
    memory = _memory(run.session)
    if _begun(memory, names, run.now) is None:
        kept = {"names": sorted(names), "begun": run.now.isoformat()}
        private_file.write(memory, json.dumps(kept).encode())
    with marked(run):
        execute(run, RENEW)
    memory.unlink(missing_ok=True)
    return Report(issued(run.plan), run.seconds, run.session.took)


def prepare_recovery(session: Session) -> Run:
    """Plan to bring back a cluster whose certificates have expired; touches nothing."""
    look, trust = look_at_existing(session)
    now = datetime.now(UTC)
    ready = as_installed(look, trust)
    plan = make_plan(session.cluster, trust, look, ready, now)
    if any(machine.binaries for machine in plan.machines.values()):
        ready = converge.needed_artifacts(session, look, trust)
        plan = make_plan(session.cluster, trust, look, ready, now)
    return Run(session, look, trust, ready, plan, now)


def recover(run: Run) -> Report:
    """Issue what has expired; on all machines at once if no member has a quorum.

    Raises:
        PhaseError: with every machine that failed in the phase that failed.
    """
    with marked(run):
        execute(run, UP)
    return Report(issued(run.plan), run.seconds, run.session.took)


def issued(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Machine -> names of the leaves that the plan issues there; kubelets request their own."""
    names = {
        name: (
            *(leaf.leaf.name for c in machine.components.values() for leaf in c.leaves),
            *(("kubelet-client",) if machine.register else ()),
        )
        for name, machine in plan.machines.items()
    }
    return {name: leaves for name, leaves in names.items() if leaves}


def refuse_unknown(cluster: Cluster, names: frozenset[str]) -> None:
    """Check that these are names of leaves of the cluster.

    Raises:
        RefusedError: no leaf has such a name.
    """
    known = {leaf.name for m in cluster.machines for leaf in table.node_leaves(cluster, m)}
    known.add(table.kubelet_client(cluster, cluster.nodes[0]).name)
    if unknown := sorted(names - known):
        message = f"no machine has a certificate called {', '.join(unknown)}"
        raise RefusedError(message, hint=f"the names are: {', '.join(sorted(known))}")


def as_installed(look: Look, trust: Trust) -> ArtifactSet:
    """The artifacts that the machines have: a plan with these installs none."""
    items = {}
    for machine in look.cluster.machines:
        seen = look[machine.name]
        if seen.facts is None:
            continue
        arch = seen.facts.arch
        for state in desired(look.cluster, machine, trust, seen.facts).values():
            for binary in state.binaries:
                there = seen.binaries.get(binary.path)
                key = (binary.artifact, arch)
                if there or key not in items:
                    pin, version = (there.pin, there.version) if there else ("", "")
                    items[key] = Ready(binary.artifact, version, arch, pin)
    return ArtifactSet("installed", items)


def refuse_unfinished(session: Session, plan: Plan) -> None:
    """Check that the cluster is as its inventory says.

    Raises:
        RefusedError: it is not: `up` has something to do.
    """
    if not plan.empty:
        touched = [name for name, machine in plan.machines.items() if not machine.empty]
        where = ", ".join(touched) or "objects in the cluster"
        message = f"{session.cluster.name} differs from its inventory ({where})"
        raise RefusedError(message, hint=f"first run {clusterctl('up', session.cluster.inventory)}")


def _memory(session: Session) -> Path:
    return session.cache.directory() / "renewal.json"


def _begun(memory: Path, names: Iterable[str], now: datetime) -> datetime | None:
    """When a stopped run began to renew the same leaves; None: there is no run to continue."""
    try:
        kept = json.loads(memory.read_text())
        begun = datetime.fromisoformat(kept["begun"])
        wanted = kept["names"] == sorted(names) and timedelta(0) <= now - begun < _FORGOTTEN
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return begun if wanted else None
