"""Finding a snapshot, opening it, and judging whether it fits the cluster."""

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
from provision.local import identities, private_file
from provision.model.cluster import Cluster
from provision.model.errors import RefusedError
from provision.model.look import Look
from provision.model.snapshot import Manifest
from provision.pki import age
from provision.pki.trust import Trust

NEWEST = "newest"


@dataclass(frozen=True)
class Keys:
    """With what a snapshot is opened.

    Attributes:
        identity: a file of identities, beside those that are known.
        passphrase: is asked only if a passphrase opens it.
    """

    identity: Path | None
    passphrase: Callable[[], str]


@contextmanager
def opened(session: Session, look: Look, chosen: str, keys: Keys) -> Iterator[Snapshot]:
    """A snapshot, decrypted into a directory of ours that goes in the end.

    Args:
        chosen: a file; else the name of a snapshot that a master took by itself; or `newest`, the
            newest of those.

    Raises:
        RefusedError: there is none, it is not whole, or nothing that is known opens it.
        UnreachableError: the place where it is does not answer.
        TrustError: keys in it do not fit together.
    """
    with private_file.scratch(session.cache.directory()) as directory:
        file, shown = Path(chosen), chosen
        if chosen == NEWEST or not file.exists():
            file = directory / "file"
            shown = _fetched(session, look, chosen, file)
        plain = directory / "plain"
        plain.touch(0o600)
        if age.wants_passphrase(file):
            age.decrypt_with_passphrase(file, plain, keys.passphrase())
        else:
            age.decrypt(file, plain, _identities(session, look, keys))
        yield snapshot_file.unpack(plain, directory, shown)


def _identities(session: Session, look: Look, keys: Keys) -> tuple[str, ...]:
    trust = session.known_trust(look)
    known = [age.identity(trust)] if trust else []
    if identities.path().exists():
        known += age.identities(identities.path())
    if keys.identity:
        known += age.identities(keys.identity)
    return tuple(dict.fromkeys(known))


def _fetched(session: Session, look: Look, chosen: str, target: Path) -> str:
    """Get a snapshot that a master took by itself; where it was."""
    copies, silent = listed(session, look)
    copy = next((c for c in copies if chosen in {NEWEST, c.name}), None)
    for where, why in silent.items():
        session.progress.note(f"{where} could not be asked for snapshots: {why}")
    if copy is None:
        what = "a snapshot" if chosen == NEWEST else chosen
        raise RefusedError(
            f"neither this computer nor a master of {session.cluster.name} that answers has {what}"
            f"{', nor is it where copies go' if session.cluster.backup.to else ''}",
            hint=f"clusterctl etcd list {session.cluster.inventory}, or a file: --from FILE",
        )
    target.touch(0o600)
    fetch(session, copy, target)
    return f"{copy.where}: {copy.name}"


def fit(cluster: Cluster, fingerprint: str | None, snapshot: Snapshot) -> None:
    """Judge whether the snapshot is of this cluster, and of no newer etcd or Kubernetes. Pure.

    Args:
        fingerprint: of the cluster's Kubernetes authority; None when its machines are new.

    Raises:
        RefusedError: it is not.
    """
    manifest = snapshot.manifest
    if manifest.cluster != cluster.name:
        raise RefusedError(
            f"{snapshot.source} is of the cluster {manifest.cluster}, not of {cluster.name}",
            hint="give a snapshot of this cluster, or the inventory of that one",
        )
    if fingerprint and snapshot.trust.fingerprint != fingerprint:
        raise RefusedError(
            f"{snapshot.source} is of another cluster of the name {cluster.name}: its authority is "
            f"{snapshot.trust.fingerprint[:12]}, this one's is {fingerprint[:12]}",
            hint="to bring that one back, take this one down first: clusterctl down "
            f"{cluster.inventory}",
        )
    ours = catalogue().sets[cluster.kubernetes]["etcd"]
    for what, theirs, mine in (
        ("etcd", manifest.etcd, ours),
        ("Kubernetes", manifest.kubernetes, cluster.kubernetes),
    ):
        if _minor(theirs) > _minor(mine):
            raise RefusedError(
                f"{snapshot.source} was made by {what} {theirs}, and {mine} would have to read it",
                hint="say the version in the inventory that the cluster had: "
                f'"kubernetes": "{manifest.kubernetes}"',
            )


def refuse_unreadable(cluster: Cluster, trust: Trust, snapshot: Snapshot) -> None:
    """Check that the cluster's apiservers can decrypt what is in the snapshot. Pure.

    Args:
        trust: the cluster's keys, which a restore on its own machines leaves as they are.

    Raises:
        RefusedError: the key that encrypts Secrets was replaced since.
    """
    if set(snapshot.trust.encryption_keys) <= set(trust.encryption_keys):
        return
    raise RefusedError(
        f"{snapshot.source} is from before `secrets rotate-key`: its Secrets are encrypted with a "
        f"key that {cluster.name} does not have any more, and nobody could read them",
        hint="give a newer snapshot. If it has to be this one: have it as a file on this computer, "
        f"then clusterctl down {cluster.inventory}, then the same with --from FILE; it brings its "
        "own keys along",
    )


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def compressed(database: Path) -> Iterator[bytes]:
    """The database as the programs on machines take it on stdin."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    with database.open("rb") as file:
        while data := file.read(1 << 20):
            if piece := compressor.compress(data):
                yield piece
    yield compressor.flush()


def describe(snapshot: Snapshot) -> str:
    """One line for people."""
    m: Manifest = snapshot.manifest
    return (
        f"{snapshot.source}: of {m.created:%Y-%m-%d %H:%M:%S} UTC ({m.age} ago), made on "
        f"{m.machine}, {m.keys} keys at revision {m.revision}, etcd {m.etcd}, "
        f"Kubernetes {m.kubernetes}"
    )
