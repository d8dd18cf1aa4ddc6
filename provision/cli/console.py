"""What people see while work goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_QUIET = 5.0  # seconds


@dataclass
class _Subject:
    text: str = ""
    state: str = "working"
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


class PlainProgress:
    """One line for each event, on standard error: for logs, pipes and CI."""

    def __init__(self) -> None:
        self._failed = False
        self._last: dict[str, tuple[str, float]] = {}

    @contextmanager
    def phase(self, name: str, summary: str, subjects: tuple[str, ...]) -> Iterator[None]:
        began, self._failed = time.monotonic(), False
        self._line(f"{name}: {summary} ({', '.join(subjects)})")
        try:
            yield
        except BaseException:
            self._failed = True
            raise
        finally:
            word = "failed after" if self._failed else "done in"
            self._line(f"{name}: {word} {time.monotonic() - began:.1f} s")

    def update(self, subject: str, text: str) -> None:
        # Not a line for each megabyte: one for each thing, or every few seconds.
        now = time.monotonic()
        before, at = self._last.get(subject, ("", 0.0))
        what = text.partition(",")[0]
        if what != before or now - at > _QUIET:
            self._last[subject] = (what, now)
            self._line(f"  {subject}: {text}")

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None:
        self._failed = self._failed or failed
        if text or failed:
            self._line(f"  {subject}: {'failed ' if failed else ''}{text}".rstrip())

    def note(self, text: str) -> None:
        self._line(text)

    @staticmethod
    def _line(text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


class LiveProgress:
    """A table that is redrawn while a phase runs, and one line of it when it has ended."""

    def __init__(self) -> None:
        self._subjects: dict[str, _Subject] = {}
        self._head = Text()

    @contextmanager
    def phase(self, name: str, summary: str, subjects: tuple[str, ...]) -> Iterator[None]:
        began, self._head = time.monotonic(), Text.assemble((name, "bold"), "  ", summary)
        good = False
        self._subjects = {subject: _Subject() for subject in subjects}
        try:
            with Live(console=err, get_renderable=self._draw, refresh_per_second=8, transient=True):
                yield
            good = True
        finally:
            failed = [name for name, s in self._subjects.items() if s.state == "failed"]
            mark = Text("✓ ", "green") if good and not failed else Text("✗ ", "red")
            line = Text.assemble(mark, self._head, "  ")
            line.append(f"{time.monotonic() - began:.1f} s", "dim")
            if failed:
                line.append(f"  failed: {', '.join(failed)}", "red")
            err.print(line)

    def update(self, subject: str, text: str) -> None:
        self._subjects.setdefault(subject, _Subject()).text = text

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None:
        entry = self._subjects.setdefault(subject, _Subject())
        entry.state = "failed" if failed else "done"
        entry.seconds = time.monotonic() - entry.began
        entry.text = text

    def note(self, text: str) -> None:
        err.print(Text(text, "dim"))

    def _draw(self) -> Group:
        grid = Table.grid(padding=(0, 1))
        marks: dict[str, Spinner | Text] = {
            "working": Spinner("dots", style="cyan"),
            "done": Text("✓", "green"),
            "failed": Text("✗", "red"),
        }
        for name, subject in self._subjects.items():
            mark = marks[subject.state]
            seconds = subject.seconds or time.monotonic() - subject.began
            grid.add_row(
                " ", mark, name, Text(subject.text, "dim"), Text(f"{seconds:.0f} s", "dim")
            )
        return Group(self._head, grid)


def progress() -> PlainProgress | LiveProgress:
    """The right one for where the output goes."""
    return LiveProgress() if err.is_terminal and not err.is_dumb_terminal else PlainProgress()
