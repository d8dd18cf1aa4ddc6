"""Shell programs: files whose parameters are assignments in front of them."""

from __future__ import annotations

from shlex import quote


def with_parameters(text: str, **parameters: str) -> str:
    """Write `name=value` lines, quoted, and the program after them."""
    return "".join(f"{name}={quote(value)}\n" for name, value in parameters.items()) + text
