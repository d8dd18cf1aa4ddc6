"""What this process has begun to change, for the message after Ctrl-C or an error."""

from __future__ import annotations

_begun: list[str] = []


def begin(what: str) -> None:
    """Say that a change begins; it may be unfinished from now on.

    Args:
        what: as it follows "may have changed": `the machines of ha`.
    """
    if what not in _begun:
        _begun.append(what)


def begun() -> tuple[str, ...]:
    """All that may have been changed, in the order in which the changes began."""
    return tuple(_begun)


def forget() -> None:
    """Begin anew: another command runs in the same process."""
    _begun.clear()
