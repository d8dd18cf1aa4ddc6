"""Progress of long work. The command line shows it; tests collect it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Phases, which may run at the same time; in each, a line for each subject.

    A subject is a machine, or another object of the work. One machine may be in several phases at
    the same time, so work reports to the result of `phase`. Outside a phase, `update` and `done` go
    to the latest phase that has the subject.
    """

    def phase(
        self, name: str, summary: str, subjects: tuple[str, ...]
    ) -> AbstractContextManager[Progress]:
        """Begin a phase on these subjects; it ends with the `with`, also after an error.

        Returns:
            the object to which the work of this phase reports.
        """

    def update(self, subject: str, text: str) -> None:
        """Describe the present work on a subject, in a few words."""

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None:
        """Report that the work on a subject has ended."""

    def note(self, text: str) -> None:
        """Write a line that stays on the screen: a decision that the operator should know."""


class Silent:
    """Reports nothing."""

    def phase(self, *_: object) -> AbstractContextManager[Silent]:
        return nullcontext(self)

    def update(self, subject: str, text: str) -> None: ...

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None: ...

    def note(self, text: str) -> None: ...
