"""The changes that this process has begun, for the message after Ctrl-C or an error."""

from __future__ import annotations

_begun: list[str] = []


def begin(what: str) -> None:
    """Record that a change begins. If the command stops later, the change may be unfinished.

    Args:
        what: as it follows "may have changed": `the machines of ha`.
    """
    if what not in _begun:
        _begun.append(what)


def begun() -> tuple[str, ...]:
    """Give everything that may have changed, in the order in which the changes began."""
    return tuple(_begun)


def forget() -> None:
    """Forget all changes, because another command runs in the same process."""
    _begun.clear()
