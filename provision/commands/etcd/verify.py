"""Does a snapshot really come back? It is restored into a throw-away etcd, and counted."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from provision.apply.session import Session
from provision.commands.etcd.snapshot_file import Snapshot
from provision.commands.etcd.source import compressed
from provision.desired import etcd_programs
from provision.model.cluster import Machine
from provision.model.errors import Failure, PhaseError, RefusedError, UnreachableError
from provision.model.look import Look

TIMEOUT = 1800  # seconds


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        keys, revision: as the throw-away etcd has them.
        machine: where it ran.
        seconds: wall time.
    """

    keys: int
    revision: int
    machine: str
    seconds: float


def try_restore(session: Session, look: Look, snapshot: Snapshot) -> Trial:
    """Restore a snapshot beside the cluster, on a member's machine, and compare.

    Raises:
        UnreachableError: no member's machine answers.
        PhaseError: etcd could not be restored or started from it.
        RefusedError: it does not have what was saved.
    """
    began = time.monotonic()
    machine = _somewhere(look)
    with session.progress.phase("verify", "restore into a throw-away etcd", (machine.name,)):
        code, out, error = session.engine.stream(
            machine,
            etcd_programs.verify(session.cluster, machine, snapshot.manifest),
            compressed(snapshot.database),
            timeout=TIMEOUT,
        )
        session.progress.done(machine.name, failed=code != 0)
    if code != 0:
        failure = Failure(machine.name, f"restore {snapshot.source}", error.strip()[-2000:])
        raise PhaseError("verify", [failure], hint="try an older snapshot: --from FILE")
    said = dict(line.split(" ", 1) for line in out.splitlines() if " " in line)
    trial = Trial(int(said["keys"]), int(said["revision"]), machine.name, time.monotonic() - began)
    compare(snapshot, trial, int(json.loads(said["status"])["revision"]))
    return trial


def compare(snapshot: Snapshot, trial: Trial, saved: int) -> None:
    """Judge what the throw-away etcd had. Pure.

    Args:
        saved: revision of the database, by etcdutl.

    Raises:
        RefusedError: it differs from what the manifest says.
    """
    manifest = snapshot.manifest
    wanted = (manifest.keys, manifest.revision, manifest.revision)
    found = (trial.keys, trial.revision, saved)
    if found != wanted:
        raise RefusedError(
            f"{snapshot.source} is not what was saved: {trial.keys} keys at revision "
            f"{trial.revision} came back, {manifest.keys} at {manifest.revision} were saved",
            hint="take another snapshot: clusterctl etcd snapshot",
        )


def _somewhere(look: Look) -> Machine:
    """A member's machine that answers; the leader's only if there is no other."""
    there = look.answering(look.cluster.etcd_members)
    if not there:
        raise UnreachableError(
            f"no machine of {look.cluster.name} with etcd answers",
            hint=f"clusterctl check {look.cluster.inventory}",
        )
    return min(there, key=lambda m: _leads(look, m))


def _leads(look: Look, machine: Machine) -> bool:
    view = look[machine.name].etcd
    return view is not None and view.id == view.leader
