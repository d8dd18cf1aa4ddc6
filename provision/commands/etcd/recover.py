"""Recover a cluster whose quorum is lost for good, from the survivor that has the newest data.

The survivor's data are copied; a temporary etcd reads the copy with --force-new-cluster and saves a
snapshot. That snapshot is then restored on every machine that answers, the survivor's included.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from provision.apply.checked import trimmed
from provision.apply.session import Session
from provision.commands.etcd import restore, snapshot_file
from provision.commands.etcd.restore import Outlook
from provision.commands.etcd.snapshot import TIMEOUT, members, trust_of
from provision.commands.etcd.snapshot_file import Snapshot
from provision.desired import etcd_programs
from provision.desired.etcd_programs import Target
from provision.local import private_file
from provision.model.cluster import Machine
from provision.model.commands import clusterctl
from provision.model.errors import Failure, PhaseError, RefusedError
from provision.model.look import Look


@dataclass(frozen=True)
class Remains:
    """What is left of a cluster.

    Attributes:
        survivors: machine that has data -> how new they are, as its member says.
        empty: machines that answer and have none.
        gone: machine -> why it does not answer.
    """

    survivors: Mapping[str, str]
    empty: tuple[str, ...]
    gone: Mapping[str, str]


def what_remains(session: Session, look: Look) -> Remains:
    """Find out what is left of the cluster. Touches nothing.

    Raises:
        RefusedError: etcd has its quorum, or no machine has data.
    """
    now = members(session)
    path = session.cluster.inventory
    # After a recovery that was killed, etcd may have its quorum again, but not all members.
    unfinished = any(view.restoring for view in look.values())
    if any(m.quorum for m in now) and not unfinished:
        raise RefusedError(
            f"etcd of {session.cluster.name} has its quorum: there is nothing to recover",
            hint=f"{clusterctl('etcd', 'status', path)} shows each member",
        )
    survivors = {
        m.machine: f"revision {m.revision}" if m.answers else "its etcd does not answer"
        for m in now
        if look[m.machine].etcd_data
    }
    if not survivors:
        raise RefusedError(
            f"no machine of {session.cluster.name} that answers has etcd's data",
            hint=f"to recover from a snapshot: {clusterctl('recover', path, '--from', 'FILE')}",
        )
    answering = look.answering(session.cluster.etcd_members)
    return Remains(
        survivors,
        tuple(m.name for m in answering if m.name not in survivors),
        look.unreachable(session.cluster.etcd_members),
    )


@contextmanager
def rescued(session: Session, look: Look, remains: Remains) -> Iterator[Snapshot]:
    """Stop everything, and make a snapshot of the survivor that has the newest data.

    Raises:
        PreflightError, ArtifactError, RefusedError: nothing was touched; see `restore.planned`.
        PhaseError: its data could not be read; they are unchanged.
    """
    trust = trust_of(session, look)
    there = look.answering(session.cluster.etcd_members)
    # The snapshot does not exist yet: the marker names no snapshot, and the restore replaces it.
    waiting = Target("rescue", 0, tuple(m.name for m in there))
    outlook = Outlook(look, there, {}, waiting, 0, restore.fresh(look, there))
    if outlook.fresh:
        outlook = replace(outlook, look=restore.planned(session, trust, outlook).look)
    restore.stop(session, outlook)
    machine = _furthest(session, [m for m in there if m.name in remains.survivors])
    with private_file.scratch(session.cache.directory()) as scratch:
        plain = scratch / "plain"
        plain.touch(0o600)
        with session.progress.phase("rescue", "a snapshot of the newest data", (machine.name,)):
            with plain.open("wb") as out:
                code, error = session.engine.receive(
                    machine,
                    etcd_programs.rescue(session.cluster, machine),
                    out.write,
                    session.cluster.inventory.read_bytes(),
                    timeout=TIMEOUT,
                )
            session.progress.done(machine.name, failed=code != 0)
        if code != 0:
            raise _failed(session, machine, "read its data", error)
        yield snapshot_file.unpack(plain, scratch, f"the data of {machine.name}", trust)


def _furthest(session: Session, machines: list[Machine]) -> Machine:
    """The machine whose stopped database has the highest revision."""
    fetched = session.engine.fetch(lambda _: etcd_programs.revision(), machines)
    revisions = {m.name: _revision(fetched[m.name].output) for m in machines}
    best = max(machines, key=lambda m: revisions[m.name])
    if revisions[best.name] < 0:
        raise _failed(session, best, "read its data", fetched[best.name].error or "no database")
    session.progress.note(
        "; ".join(f"{name} has revision {number}" for name, number in revisions.items())
    )
    return best


def _revision(output: str) -> int:
    try:
        return int(json.loads(output)["revision"])
    except (ValueError, LookupError):
        return -1


def _failed(session: Session, machine: Machine, step: str, cause: str) -> PhaseError:
    return PhaseError(
        "rescue",
        [Failure(machine.name, step, trimmed(cause))],
        hint="its data are unchanged; to recover from a snapshot: "
        f"{clusterctl('recover', session.cluster.inventory, '--from', 'FILE')}",
    )
