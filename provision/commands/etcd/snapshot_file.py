"""A snapshot as a file: what it holds, and whether it is whole.

It is a tar, compressed by zstd, encrypted by age: `age -d -i KEY FILE | zstd -d | tar -x` opens it
without clusterctl. In this order:

    manifest.json           what it is; see `Manifest`
    inventory.py            the inventory's text; empty where it was not known
    etc/kubernetes/pki/...  the cluster's trust, as it lies on every master
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

SUFFIX = ".tar.zst.age"
_DATABASE = "etcd.db"
_CHUNK = 1 << 20
_SMALL = 16 << 20  # bytes that any other member may have


@dataclass(frozen=True)
class Snapshot:
    """An opened snapshot.

    Attributes:
        source: where it came from, for people.
        database: etcd.db, unpacked.
    """

    source: str
    manifest: Manifest
    trust: Trust
    database: Path
    inventory: str = field(repr=False)


def name(cluster: str, created: datetime, machine: str) -> str:
    """Of the file. Names of a cluster sort as the snapshots' times do."""
    return f"{cluster}-{created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{machine}{SUFFIX}"


def is_of(cluster: str, file: str) -> bool:
    """Whether a file has the name of a snapshot of this cluster."""
    pattern = rf"{re.escape(cluster)}-\d{{8}}T\d{{6}}Z-[^/]+{re.escape(SUFFIX)}"
    return re.fullmatch(pattern, file, re.ASCII) is not None


def unpack(source: Path, directory: Path, shown: str, trust: Trust | None = None) -> Snapshot:
    """Read a decrypted snapshot.

    Args:
        source: the compressed tar.
        directory: etcd.db is unpacked there; nobody else may read it.
        shown: what errors call it.
        trust: the cluster's, for a snapshot that was made without.

    Raises:
        RefusedError: it is not whole, or not what it says.
        TrustError: keys in it do not fit together.
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
        raise _damaged(shown, "there is no manifest in it")
    if digest != manifest.sha256:
        raise _damaged(shown, "etcd's data are not those that were saved")
    return Snapshot(
        shown, manifest, trust or Trust.from_files(keys, datetime.now(UTC)), database, inventory
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
    return RefusedError(
        f"{shown} is not a whole snapshot: {why}", hint="take another copy, or an older snapshot"
    )
