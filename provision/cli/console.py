"""The two consoles: results on standard output, everything else on standard error."""

from __future__ import annotations

from rich.console import Console


class _Console(Console):
    """A console that raises the error of a closed output, so that `problems` handles it."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = _Console(highlight=False)
err = _Console(stderr=True, highlight=False)
