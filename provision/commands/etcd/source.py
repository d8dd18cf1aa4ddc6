"""Find a snapshot, open it, and judge whether it fits the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import zstandard

from provision.apply.session import Session
from provision.artifacts.catalogue import catalogue
from provision.commands.etcd import snapshot_file
from provision.commands.etcd.copies import fetch, listed
from provision.commands.etcd.snapshot_file import Snapshot
from provision.local import age_files, identities, private_file
from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError
from provision.model.look import Look
from provision.model.snapshot import Manifest
from provision.pki import age
from provision.pki.trust import Trust

NEWEST = "newest"


@dataclass(frozen=True)
class Keys:
    """The keys that may open a snapshot.

    Attributes:
        identity: a file of identities, tried beside the known ones.
        passphrase: is called only if the snapshot is encrypted with a passphrase.
    """

    identity: Path | None
    passphrase: Callable[[], str]


@contextmanager
def opened(session: Session, look: Look, chosen: str, keys: Keys) -> Iterator[Snapshot]:
    """A snapshot, decrypted into a private directory that is removed in the end.

    Args:
        chosen: a file; else the name of a snapshot that a master took by itself; or `newest`, the
            newest of those.

    Raises:
        RefusedError: there is none, it is damaged, or no known key opens it.
        UnreachableError: its place does not answer.
        TrustError: the keys in it do not match each other.
    """
    with private_file.scratch(session.cache.directory()) as directory:
        file, shown = Path(chosen), chosen
        if chosen == NEWEST or not file.exists():
            file = directory / "file"
            shown = _fetched(session, look, chosen, file)
        plain = directory / "plain"
        plain.touch(0o600)
        if age_files.wants_passphrase(file):
            age_files.decrypt_with_passphrase(file, plain, keys.passphrase())
        else:
            age_files.decrypt(file, plain, _identities(session, look, keys))
        yield snapshot_file.unpack(plain, directory, shown)


def _identities(session: Session, look: Look, keys: Keys) -> tuple[str, ...]:
    trust = session.known_trust(look)
    known = [age.identity(trust)] if trust else []
    if identities.path().exists():
        known += age_files.read_identities(identities.path())
    if keys.identity:
        known += age_files.read_identities(keys.identity)
    return tuple(dict.fromkeys(known))


def _fetched(session: Session, look: Look, chosen: str, target: Path) -> str:
    """Fetch a snapshot that a master took by itself; returns its place and name."""
    copies, silent = listed(session, look)
    copy = next((c for c in copies if chosen in {NEWEST, c.name}), None)
    for where, why in silent.items():
        session.progress.note(f"{where} could not be asked for snapshots: {why}")
    if copy is None:
        what = "a snapshot" if chosen == NEWEST else chosen
        raise RefusedError(
            f"{what} was found neither on this computer nor on a master of {session.cluster.name} "
            f"that answers{', nor where copies go' if session.cluster.backup.to else ''}",
            hint=f"{clusterctl('etcd', 'list', session.cluster.inventory)} shows all; or give a file: "
            "--from FILE",
        )
    target.touch(0o600)
    fetch(session, copy, target)
    return f"{copy.where}: {copy.name}"


def fit(cluster: Cluster, fingerprint: str | None, snapshot: Snapshot) -> None:
    """Check that the snapshot is of this cluster, and not of a newer etcd or Kubernetes. Pure.

    Args:
        fingerprint: of the cluster's Kubernetes authority; None when its machines are new.

    Raises:
        RefusedError: it is not.
    """
    manifest = snapshot.manifest
    if manifest.cluster != cluster.name:
        raise RefusedError(
            f"{snapshot.source} is of the cluster {manifest.cluster}, not of {cluster.name}",
            hint=f"give a snapshot of {cluster.name}, or the inventory of {manifest.cluster}",
        )
    if fingerprint and snapshot.trust.fingerprint != fingerprint:
        raise RefusedError(
            f"{snapshot.source} is of another cluster of the name {cluster.name}: the snapshot's "
            f"authority is {snapshot.trust.fingerprint[:12]}, the cluster's is {fingerprint[:12]}",
            hint="to restore the snapshot, first remove the present cluster: "
            f"{clusterctl('down', cluster.inventory)}",
        )
    etcd = catalogue().sets[cluster.kubernetes]["etcd"]
    for what, theirs, mine in (
        ("etcd", manifest.etcd, etcd),
        ("Kubernetes", manifest.kubernetes, cluster.kubernetes),
    ):
        if _minor(theirs) > _minor(mine):
            raise RefusedError(
                f"{snapshot.source} was made by {what} {theirs}, which {what} {mine} cannot read",
                hint="set the version that the cluster had in the inventory: "
                f'"kubernetes": "{manifest.kubernetes}"',
            )


def refuse_unreadable(cluster: Cluster, trust: Trust, snapshot: Snapshot) -> None:
    """Check that the cluster's apiservers can decrypt what is in the snapshot. Pure.

    Args:
        trust: the cluster's keys, which a restore on its own machines leaves as they are.

    Raises:
        RefusedError: the key that encrypts Secrets has been replaced since.
    """
    if set(snapshot.trust.encryption_keys) <= set(trust.encryption_keys):
        return
    raise RefusedError(
        f"{snapshot.source} is from before `secrets rotate-key`: its Secrets are encrypted with a "
        f"key that {cluster.name} no longer has, and could not be read",
        hint="give a newer snapshot. If it must be this one: copy it to this computer, run "
        f"{clusterctl('down', cluster.inventory)}, then the same command with --from FILE; the snapshot "
        "contains its own keys",
    )


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def compressed(database: Path) -> Iterator[bytes]:
    """The database, compressed as the programs on the machines read it from stdin."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    with database.open("rb") as file:
        while data := file.read(1 << 20):
            if piece := compressor.compress(data):
                yield piece
    yield compressor.flush()


def describe(snapshot: Snapshot) -> str:
    """The snapshot in one line of text."""
    m: Manifest = snapshot.manifest
    return (
        f"{snapshot.source}: of {m.created:%Y-%m-%d %H:%M:%S} UTC ({m.age} ago), made on "
        f"{m.machine}, {m.keys} keys at revision {m.revision}, etcd {m.etcd}, "
        f"Kubernetes {m.kubernetes}"
    )
