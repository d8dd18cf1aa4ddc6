"""Files that only the operator may read."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from provision.local import disk
from provision.model.commands import shell
from provision.model.errors import RefusedError

_SCRATCH = "snapshot-"


def read(path: Path) -> bytes:
    """Read a key or a passphrase that only the operator may read.

    Raises:
        RefusedError: the file does not exist, or others may read it.
    """
    try:
        mode = path.stat().st_mode & 0o777
        content = path.read_bytes()
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        message = f"{path} is {mode:04o}: others can read it"
        raise RefusedError(message, hint=shell("chmod", 600, path))
    return content


def directory(path: Path) -> None:
    """Make a directory and its missing parents, 0700."""
    for each in reversed([path, *path.parents]):
        each.mkdir(mode=0o700, exist_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a file, 0600 from its first moment. A reader sees the old content or the new.

    Missing directories are made, 0700.
    """
    directory(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with disk.writing(path), os.fdopen(descriptor, "wb") as out:
        out.write(content)
    temporary.replace(path)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Make a directory in `parent`, 0700, and remove it at the end.

    `sweep` removes the directories of runs that were killed.
    """
    with ExitStack() as stack:
        with _locked(parent):  # no other run sees it before it is locked
            made = Path(stack.enter_context(TemporaryDirectory(dir=parent, prefix=_SCRATCH)))
            stack.enter_context(_locked(made))
        yield made


def sweep(parent: Path) -> None:
    """Remove directories of `scratch` whose runs have ended."""
    with _locked(parent):
        for left in parent.glob(f"{_SCRATCH}*"):
            with suppress(OSError), _locked(left, fcntl.LOCK_NB):
                shutil.rmtree(left)


@contextmanager
def _locked(path: Path, how: int = 0) -> Iterator[None]:
    """Lock a directory against other processes; `LOCK_NB`: raise OSError if one has it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        # gevent closes only when its loop runs again.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
