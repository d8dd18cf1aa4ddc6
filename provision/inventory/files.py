"""Paths that an inventory names."""

from __future__ import annotations

from pathlib import Path


def absolute(path: Path, folder: Path) -> Path:
    """Expand `~`; start where the inventory file is."""
    try:
        return folder / path.expanduser()
    except RuntimeError:  # the home of somebody who is not there
        return folder / path


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that is closed to us
        return False


def mode_open_to_others(path: Path) -> str:
    """Its mode, `0644`, if others than its owner can read or write it; else nothing."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return ""
    return f"{mode:04o}" if mode & 0o077 else ""
