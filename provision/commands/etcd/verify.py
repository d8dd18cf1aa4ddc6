"""Prove that a snapshot can be restored: restore it into a temporary etcd and count its keys."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from provision.apply.checked import checked
from provision.apply.session import Session
from provision.commands.etcd.snapshot_file import Snapshot
from provision.commands.etcd.source import compressed
from provision.desired import etcd_programs
from provision.model.cluster import Machine
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError, UnreachableError
from provision.model.look import Look

TIMEOUT = 1800  # seconds


@dataclass(frozen=True)
class Trial:
    """The result.

    Attributes:
        keys, revision: as the temporary etcd has them.
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
        RefusedError: the restored data differ from what was saved.
    """
    began = time.monotonic()
    machine = _somewhere(look)
    with session.progress.phase("verify", "restore into a temporary etcd", (machine.name,)):
        answer = session.engine.stream(
            machine,
            etcd_programs.verify(session.cluster, machine, snapshot.manifest),
            compressed(snapshot.database),
            timeout=TIMEOUT,
        )
        session.progress.done(machine.name, failed=answer[0] != 0)
    step, hint = f"restore {snapshot.source}", "try an older snapshot: --from FILE"
    out = checked(answer, machine, "verify", step, hint=hint)
    said = dict(line.split(" ", 1) for line in out.splitlines() if " " in line)
    trial = Trial(int(said["keys"]), int(said["revision"]), machine.name, time.monotonic() - began)
    compare(snapshot, trial, int(json.loads(said["status"])["revision"]))
    return trial


def compare(snapshot: Snapshot, trial: Trial, saved: int) -> None:
    """Compare what the temporary etcd has with the manifest. Pure.

    Args:
        saved: revision of the database, by etcdutl.

    Raises:
        RefusedError: they differ.
    """
    manifest = snapshot.manifest
    wanted = (manifest.keys, manifest.revision, manifest.revision)
    found = (trial.keys, trial.revision, saved)
    if found != wanted:
        raise RefusedError(
            f"{snapshot.source} does not have what was saved: the restored etcd has {trial.keys} "
            f"keys at revision {trial.revision}, the saved one had {manifest.keys} at "
            f"{manifest.revision}",
            hint=f"take another snapshot: {clusterctl('etcd', 'snapshot', 'INVENTORY')}",
        )


def _somewhere(look: Look) -> Machine:
    """A member's machine that answers; the leader's only if there is no other."""
    there = look.answering(look.cluster.etcd_members)
    if not there:
        raise UnreachableError(
            f"no machine of {look.cluster.name} with etcd answers",
            hint=clusterctl("check", look.cluster.inventory),
        )
    return min(there, key=lambda m: _leads(look, m))


def _leads(look: Look, machine: Machine) -> bool:
    view = look[machine.name].etcd
    return view is not None and view.id == view.leader
