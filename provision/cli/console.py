"""The two consoles: results on standard output, everything else on standard error."""

from __future__ import annotations

from rich.console import Console


class _Console(Console):
    """A console that leaves a closed output to the one place that handles all errors."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = _Console(highlight=False)
err = _Console(stderr=True, highlight=False)
