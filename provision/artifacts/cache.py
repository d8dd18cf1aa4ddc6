"""Files in the user's cache: whole or absent, and safe when two programs make the same one."""

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


def root() -> Path:
    """`~/.cache/clusterctl` on Linux."""
    return platformdirs.user_cache_path("clusterctl")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; it takes its place if the block succeeds, else it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock; `waiting` is called once if somebody else has it.

    The lock goes with the process, so a killed one blocks nobody.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                told = True
                # Not a blocking flock: under gevent that would stop every other greenlet.
                time.sleep(0.2)
        yield


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def record(path: Path) -> str:
    """Hash a file that was just made, and keep the hash beside it."""
    digest, status = sha256(path), path.stat()
    note = {"sha256": digest, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    with replacing(_note(path)) as temporary:
        temporary.write_text(json.dumps(note))
    return digest


def recorded(path: Path) -> str | None:
    """The hash that was kept, or None where there is none or the file is not the same any more.

    Hashing a gigabyte on every run would take longer than a run that has nothing to do.
    """
    try:
        note, status = json.loads(_note(path).read_text()), path.stat()
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = (note["size"], note["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    return str(note["sha256"]) if same else None


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256.json")
