"""The beginnings and ends of phases as JSON lines, for programs that follow a run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TextIO

from provision.local.progress import Progress


class Event(StrEnum):
    """The kind of a line: the value of its key `event`."""

    BEGAN = "phase-began"
    ENDED = "phase-ended"
    FAILED = "phase-failed"


class Recorded:
    """Passes progress on to another `Progress`, and also writes it to a file.

    A line is an object: `event` (see `Event`), `phase` (its name), `subjects` (names of machines
    or things), `time` (seconds since 1970). Each line is written at once.
    """

    def __init__(self, progress: Progress, file: TextIO) -> None:
        self._progress, self._file = progress, file

    @contextmanager
    def phase(self, name: str, summary: str, subjects: tuple[str, ...]) -> Iterator[Recorded]:
        self._write(Event.BEGAN, name, subjects)
        end = Event.FAILED
        try:
            with self._progress.phase(name, summary, subjects) as phase:
                yield Recorded(phase, self._file)
            end = Event.ENDED
        finally:
            self._write(end, name, subjects)

    def update(self, subject: str, text: str) -> None:
        self._progress.update(subject, text)

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None:
        self._progress.done(subject, text, failed=failed)

    def note(self, text: str) -> None:
        self._progress.note(text)

    def _write(self, event: Event, phase: str, subjects: tuple[str, ...]) -> None:
        line = {"event": event, "phase": phase, "subjects": subjects, "time": time.time()}
        self._file.write(f"{json.dumps(line)}\n")
        self._file.flush()
