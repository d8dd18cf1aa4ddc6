"""Files in the user's cache. A file is whole or absent, even if two programs make the same file."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from provision.local import disk


def root() -> Path:
    """`~/.cache/clusterctl` on Linux."""
    return platformdirs.user_cache_path("clusterctl")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`. It replaces `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with disk.writing(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock; `waiting` is called once if another process holds it.

    The lock ends with its process, even if the process is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        announced = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not announced:
                    waiting()
                announced = True
                # A blocking flock would stop every other greenlet under gevent.
                time.sleep(0.2)
        yield


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file, in hex. The file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """Give the SHA-256 of bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def record(path: Path) -> str:
    """Hash a file that was just made, and write the hash beside it."""
    digest, status = sha256(path), path.stat()
    note = {"sha256": digest, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    with replacing(_note(path)) as temporary:
        temporary.write_text(json.dumps(note))
    return digest


def recorded(path: Path) -> str | None:
    """Read the hash that `record` wrote; None: there is no hash, or the file changed later.

    Hashing a gigabyte in every run would take longer than a run without changes.
    """
    try:
        note, status = json.loads(_note(path).read_text()), path.stat()
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = (note["size"], note["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    return str(note["sha256"]) if same else None


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256.json")
