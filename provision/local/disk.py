"""Errors of this computer's files: which file, why, and what to do."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from provision.model.commands import shell

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Add the file's name to errors of the block: an error of `write` does not have it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def explain(error: OSError) -> tuple[str, str] | None:
    """Say which file failed, why, and what to do; None: it is not an error of a file."""
    where = str(error.filename) if error.filename is not None else ""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        where = where or _full()
        message = f"{where} cannot be written: {reason}" if where else reason
        check = shell("df", "-h", *([_existing(where)] if where else []))
        return message, f"Free space there (see: {check}){_elsewhere(where)}. Then run it again."
    if not where:
        return None
    if error.errno in _FORBIDDEN:
        hint = f"Give your user access to it{_elsewhere(where)}. Then run it again."
        return f"{where} cannot be used: {reason}", hint
    return f"{where} cannot be used: {reason}", ""


def _own() -> dict[str, Path]:
    """Give environment variable -> the directory of clusterctl that it sets."""
    return {
        "XDG_STATE_HOME": platformdirs.user_state_path("clusterctl"),
        "XDG_CACHE_HOME": platformdirs.user_cache_path("clusterctl"),
        "TMPDIR": Path(tempfile.gettempdir()),
    }


def _elsewhere(where: str) -> str:
    """Say how to choose another directory, if the file is in a directory of clusterctl."""
    for variable, directory in _own().items():
        inside = Path(where)
        if where and (inside.is_relative_to(directory) or directory.is_relative_to(inside)):
            return f", or use another directory: export {variable}=DIRECTORY"
    return ""


def _full() -> str:
    """Give the first directory of clusterctl on a full disk; empty: no disk is full."""
    for directory in (*_own().values(), Path.cwd()):
        there = os.statvfs(_existing(str(directory)))
        if there.f_blocks and not there.f_bavail:
            return str(directory)
    return ""


def _existing(path: str) -> Path:
    """Give the nearest directory that exists."""
    return next((p for p in (Path(path), *Path(path).parents) if p.is_dir()), Path("/"))
