"""The progress of a command: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TextIO

from provision.cli.console import err

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    from provision.local.progress import Progress

_QUIET = 5.0  # minimum seconds between two lines with the same text
_events: list[TextIO] = []


def record_events(file: TextIO) -> None:
    """Write the events of all progress of this process to a file, as JSON lines."""
    _events.append(file)


def progress() -> Progress:
    """Choose the progress for standard error: live on a terminal, plain lines elsewhere."""
    from provision.local.events import Recorded

    live = err.is_terminal and not err.is_dumb_terminal
    shown: Progress = LiveProgress() if live else PlainProgress()
    for file in _events:
        shown = Recorded(shown, file)
    return shown


class _State(Enum):
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


@dataclass
class _Subject:
    text: str = ""
    state: _State = _State.WORKING
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


class _Phase:
    """One phase that runs. `whole` shows it."""

    def __init__(self, whole: _Shown, name: str, summary: str, subjects: tuple[str, ...]) -> None:
        self.whole, self.name, self.summary = whole, name, summary
        self.began = time.monotonic()
        self.subjects = {subject: _Subject() for subject in subjects}

    @property
    def failed(self) -> tuple[str, ...]:
        """Subjects that have failed."""
        return tuple(n for n, s in self.subjects.items() if s.state is _State.FAILED)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def phase(
        self, name: str, summary: str, subjects: tuple[str, ...]
    ) -> AbstractContextManager[Progress]:
        return self.whole.phase(name, summary, subjects)

    def update(self, subject: str, text: str) -> None:
        self.subjects.setdefault(subject, _Subject()).text = text
        self.whole.updated(self, subject)

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None:
        entry = self.subjects.setdefault(subject, _Subject())
        entry.state = _State.FAILED if failed else _State.DONE
        entry.seconds = time.monotonic() - entry.began
        entry.text = text
        self.whole.finished(self, subject)

    def note(self, text: str) -> None:
        self.whole.note(text)


class _Shown(ABC):
    """Phases that run, in the order in which they began."""

    def __init__(self) -> None:
        self.running: list[_Phase] = []

    @contextmanager
    def phase(self, name: str, summary: str, subjects: tuple[str, ...]) -> Iterator[Progress]:
        phase = _Phase(self, name, summary, subjects)
        good = False
        self.running.append(phase)
        try:
            self.begun(phase)
            yield phase
            good = not phase.failed
        finally:
            self.running.remove(phase)
            self.ended(phase, good=good)

    def update(self, subject: str, text: str) -> None:
        if phase := self._latest(subject):
            phase.update(subject, text)

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None:
        if phase := self._latest(subject):
            phase.done(subject, text, failed=failed)

    @abstractmethod
    def note(self, text: str) -> None: ...

    @abstractmethod
    def begun(self, phase: _Phase) -> None: ...

    @abstractmethod
    def ended(self, phase: _Phase, *, good: bool) -> None: ...

    @abstractmethod
    def updated(self, phase: _Phase, subject: str) -> None: ...

    @abstractmethod
    def finished(self, phase: _Phase, subject: str) -> None: ...

    def _latest(self, subject: str) -> _Phase | None:
        phases = [phase for phase in self.running if subject in phase.subjects] or self.running
        return phases[-1] if phases else None


class PlainProgress(_Shown):
    """One line for each event, on standard error: for logs, pipes and CI."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], tuple[str, float]] = {}

    def begun(self, phase: _Phase) -> None:
        self.note(f"{phase.name}: {phase.summary} ({', '.join(phase.subjects)})")

    def ended(self, phase: _Phase, *, good: bool) -> None:
        self.note(f"{phase.name}: {'done in' if good else 'failed after'} {phase.seconds:.1f} s")

    def updated(self, phase: _Phase, subject: str) -> None:
        # A download reports each megabyte. Print a line for each step, and one every few seconds.
        now, text = time.monotonic(), phase.subjects[subject].text
        before, at = self._last.get((phase.name, subject), ("", 0.0))
        step = text.partition(",")[0]
        if step != before or now - at > _QUIET:
            self._last[phase.name, subject] = (step, now)
            self._line(phase, subject, text)

    def finished(self, phase: _Phase, subject: str) -> None:
        entry = phase.subjects[subject]
        failed = entry.state is _State.FAILED
        if entry.text or failed:
            self._line(phase, subject, f"{'failed ' if failed else ''}{entry.text}".rstrip())

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def _line(self, phase: _Phase, subject: str, text: str) -> None:
        several = f"{phase.name}, " if len(self.running) > 1 else ""
        self.note(f"  {several}{subject}: {text}")


class LiveProgress(_Shown):
    """A table of all phases that run, and one line of each phase that has ended."""

    def __init__(self) -> None:
        super().__init__()
        self._live: Live | None = None
        self._spinner: Spinner | None = None

    def begun(self, phase: _Phase) -> None:  # noqa: ARG002
        from rich.live import Live
        from rich.spinner import Spinner

        if self._live is None:
            self._spinner = Spinner("dots", style="cyan")
            self._live = Live(
                console=err, get_renderable=self._draw, refresh_per_second=8, transient=True
            )
            self._live.start()

    def ended(self, phase: _Phase, *, good: bool) -> None:
        from rich.text import Text

        if self._live and not self.running:
            self._live.stop()
            self._live = None
        line = Text.assemble(Text("✓ ", "green") if good else Text("✗ ", "red"), _head(phase))
        line.append(f"  {phase.seconds:.1f} s", "dim")
        if phase.failed:
            line.append(f"  failed: {', '.join(phase.failed)}", "red")
        err.print(line)

    def updated(self, phase: _Phase, subject: str) -> None: ...

    def finished(self, phase: _Phase, subject: str) -> None: ...

    def note(self, text: str) -> None:
        err.print(text, style="dim", markup=False)

    def _draw(self) -> Group:
        from rich.console import Group

        parts = ((_head(phase), _rows(phase, self._spinner or "")) for phase in self.running)
        return Group(*(part for pair in parts for part in pair))


def _head(phase: _Phase) -> Text:
    from rich.text import Text

    return Text.assemble((phase.name, "bold"), "  ", phase.summary)


def _rows(phase: _Phase, working: Spinner | str) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    marks: dict[_State, Spinner | Text | str] = {
        _State.WORKING: working,
        _State.DONE: Text("✓", "green"),
        _State.FAILED: Text("✗", "red"),
    }
    for name, subject in phase.subjects.items():
        seconds = subject.seconds or time.monotonic() - subject.began
        texts = (Text(subject.text, "dim"), Text(f"{seconds:.0f} s", "dim"))
        grid.add_row(" ", marks[subject.state], name, *texts)
    return grid
