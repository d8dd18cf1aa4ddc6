"""A snapshot as a file: its contents, and whether it is complete.

It is a tar archive, compressed by zstd, encrypted by age: `age -d -i KEY FILE | zstd -d | tar -x`
opens it without clusterctl. Its members, in this order:

    manifest.json           what it is; see `Manifest`
    inventory.py            the inventory's text; empty if it was not known
    etc/kubernetes/pki/...  the cluster's trust, as on every master
    etcd.db                 as `etcdctl snapshot save` wrote it
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import zstandard
from pydantic import ValidationError

from provision.model.errors import RefusedError
from provision.model.snapshot import Manifest
from provision.pki.trust import Trust
from provision.pki.trust_files import read_trust

SUFFIX = ".tar.zst.age"
_DATABASE = "etcd.db"
_CHUNK = 1 << 20
_SMALL = 16 << 20  # bytes, for any other member of the archive


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot.

    Attributes:
        source: where it came from, as text.
        database: etcd.db, unpacked.
    """

    source: str
    manifest: Manifest
    trust: Trust
    database: Path
    inventory: str = field(repr=False)


def name(cluster: str, created: datetime, machine: str) -> str:
    """The name of a snapshot's file. The names of a cluster's snapshots sort by time."""
    return f"{cluster}-{created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{machine}{SUFFIX}"


def is_of(cluster: str, file: str) -> bool:
    """Whether a file has the name of a snapshot of this cluster."""
    pattern = rf"{re.escape(cluster)}-\d{{8}}T\d{{6}}Z-[^/]+{re.escape(SUFFIX)}"
    return re.fullmatch(pattern, file, re.ASCII) is not None


def unpack(source: Path, directory: Path, shown: str, trust: Trust | None = None) -> Snapshot:
    """Read a decrypted snapshot.

    Args:
        source: the compressed tar.
        directory: etcd.db is unpacked there; only its owner may read it.
        shown: its name in errors.
        trust: the cluster's, for a snapshot that contains none.

    Raises:
        RefusedError: it is incomplete, or does not match its manifest.
        TrustError: the keys in it do not match each other.
    """
    manifest: Manifest | None = None
    inventory = ""
    keys: dict[str, bytes] = {}
    database = directory / _DATABASE
    digest = ""
    try:
        with (
            source.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as plain,
            tarfile.open(fileobj=plain, mode="r|") as tar,
        ):
            for member in tar:
                content = tar.extractfile(member)
                if content is None:
                    continue
                if member.name == _DATABASE:
                    digest = _write(content, database)
                elif member.size > _SMALL:
                    raise _damaged(shown, f"{member.name} has {member.size} bytes")
                elif member.name == "manifest.json":
                    manifest = Manifest.model_validate_json(content.read())
                elif member.name == "inventory.py":
                    inventory = content.read().decode()
                else:
                    keys[f"/{member.name}"] = content.read()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _damaged(shown, f"manifest.json: {where}: {first['msg']}") from error
    except (tarfile.TarError, zstandard.ZstdError, EOFError, UnicodeDecodeError) as error:
        raise _damaged(shown, str(error)) from error
    if manifest is None:
        raise _damaged(shown, "it has no manifest")
    if digest != manifest.sha256:
        raise _damaged(shown, "the SHA-256 of etcd's data is not that of the manifest")
    return Snapshot(
        shown, manifest, trust or read_trust(keys, datetime.now(UTC)), database, inventory
    )


def _write(content: IO[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    target.touch(0o600)
    with target.open("wb") as out:
        while data := content.read(_CHUNK):
            digest.update(data)
            out.write(data)
    return digest.hexdigest()


def _damaged(shown: str, why: str) -> RefusedError:
    return RefusedError(f"{shown} is damaged: {why}", hint="use another copy, or an older snapshot")
