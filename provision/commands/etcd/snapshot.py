"""Take a snapshot to this computer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provision.apply.checked import trimmed
from provision.apply.session import Session
from provision.artifacts.cache import replacing
from provision.commands.etcd import snapshot_file
from provision.commands.etcd.status import Member, parse
from provision.desired import etcd_programs
from provision.local import age_files, identities, private_file
from provision.model.cluster import Machine
from provision.model.commands import clusterctl
from provision.model.errors import Failure, PhaseError, RefusedError
from provision.model.look import Look
from provision.model.snapshot import Manifest
from provision.pki import age
from provision.pki.trust import Trust

TIMEOUT = 1800  # seconds; etcd's largest sensible database, 8 GiB, over a slow line


def members(session: Session) -> tuple[Member, ...]:
    """What every member says now, in the inventory's order."""
    machines = session.cluster.etcd_members
    seen = session.engine.fetch(lambda m: etcd_programs.status(session.cluster, m), machines)
    return tuple(parse(m.name, seen[m.name].output, seen[m.name].error) for m in machines)


def trust_of(session: Session, look: Look) -> Trust:
    """The keys of the cluster. The key of its snapshots is also kept for good on this computer.

    An operator who encrypts the cache wants no key there in plain text: then it is not kept.

    Raises:
        RefusedError: there is no such cluster yet.
    """
    trust = session.known_trust(look)
    if trust is None:
        raise RefusedError(
            f"there is no cluster {session.cluster.name} yet",
            hint=clusterctl("up", session.cluster.inventory),
        )
    if not session.cache.sealed:
        identities.remember(age.identity(trust), session.cluster.name)
    return trust


@dataclass(frozen=True)
class Taken:
    """A snapshot that was written.

    Attributes:
        machine: whose member gave it.
        size: of the file, bytes.
        seconds: wall time.
    """

    path: Path
    manifest: Manifest
    machine: str
    size: int
    seconds: float


def take(session: Session, target: Path | None, passphrase: str | None) -> Taken:
    """Take a snapshot from a healthy member to this computer.

    Args:
        target: the file; None: a file in the current directory, named by cluster, time and machine.
        passphrase: encrypts the snapshot instead of the cluster's key.

    Raises:
        RefusedError: the cluster does not exist, the file exists, or the disk is full.
        PhaseError: why each machine could not take one.
    """
    began = time.monotonic()
    look = session.observe()
    trust = trust_of(session, look)
    if target is not None and target.exists():
        raise RefusedError(f"{target} exists", hint="give another name with -o")
    if passphrase is None:  # the operator must be able to open it, even without the cluster
        identities.remember(age.identity(trust), session.cluster.name)
    with writing(), private_file.scratch(session.cache.directory()) as scratch:
        plain = scratch / "plain"
        machine = _fetch(session, look, plain)
        snapshot = snapshot_file.unpack(plain, scratch, f"the snapshot of {machine.name}")
        manifest = snapshot.manifest
        name = snapshot_file.name(manifest.cluster, manifest.created, machine.name)
        path = target or Path(name)
        with replacing(path) as temporary:
            if passphrase is None:
                age_files.encrypt(plain, temporary, [age.recipient(age.identity(trust))])
            else:
                age_files.encrypt_with_passphrase(plain, temporary, passphrase)
    size = path.stat().st_size
    return Taken(path, manifest, machine.name, size, time.monotonic() - began)


@contextmanager
def writing() -> Iterator[None]:
    """Turn an error of this computer's file system into a refusal.

    Raises:
        RefusedError: the disk is full, or the file must not be written.
    """
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise RefusedError(
            f"the snapshot cannot be written on this computer: {where}{error.strerror}",
            hint="it is built in ~/.local/state/clusterctl, then written to the file of -o: both "
            "need free space",
        ) from error


def _fetch(session: Session, look: Look, target: Path) -> Machine:
    """Get a snapshot from the first master that can take one."""
    inventory = session.cluster.inventory.read_bytes()
    failures = []
    masters = look.answering(session.cluster.masters)
    with session.progress.phase(
        "snapshot", "from a healthy member", tuple(m.name for m in masters)
    ):
        for machine in masters:
            target.touch(0o600)
            with target.open("wb") as out:
                code, error = session.engine.receive(
                    machine,
                    etcd_programs.snapshot(session.cluster, machine),
                    _reported(session, machine, out.write),
                    inventory,
                    timeout=TIMEOUT,
                )
            session.progress.done(machine.name, failed=code != 0)
            if code == 0:
                return machine
            failures.append(
                Failure(machine.name, "take a snapshot", trimmed(error) or f"exit status {code}")
            )
    failures += [
        Failure(name, "connect", why)
        for name, why in look.unreachable(session.cluster.masters).items()
    ]
    hint = f"{clusterctl('etcd', 'status', session.cluster.inventory)} shows what is wrong with each member"
    raise PhaseError("snapshot", failures, hint=hint)


def _reported(
    session: Session, machine: Machine, write: Callable[[bytes], object]
) -> Callable[[bytes], None]:
    total = 0

    def sink(data: bytes) -> None:
        nonlocal total
        total += len(data)
        with writing():  # otherwise the error would look like a broken connection
            write(data)
        session.progress.update(machine.name, f"{total >> 20} MiB")

    return sink
