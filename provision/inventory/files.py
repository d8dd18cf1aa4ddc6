"""Files that an inventory names."""

from __future__ import annotations

from pathlib import Path


def absolute(path: Path, folder: Path) -> Path:
    """Expand `~`, and resolve the path relative to the inventory's directory."""
    try:
        return folder / path.expanduser()
    except RuntimeError:  # there is no such user
        return folder / path


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long, or the directory cannot be read
        return False


def mode_open_to_others(path: Path) -> str:
    """The file's mode, `0644`, if other users can read or write it; otherwise empty."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return ""
    return f"{mode:04o}" if mode & 0o077 else ""
