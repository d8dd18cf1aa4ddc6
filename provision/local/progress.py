"""What long work reports while it runs. The command line shows it; tests collect it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Phases, which may run at the same time; in each, a line for each subject.

    A subject is a machine, or another thing that is worked on. One machine may be in several
    phases at once, so work reports to what `phase` gives. `update` and `done` of the whole go to
    the phase that began last among those that have the subject.
    """

    def phase(
        self, name: str, summary: str, subjects: tuple[str, ...]
    ) -> AbstractContextManager[Progress]:
        """Begin a phase on these subjects; it ends with the `with`, also after an error.

        Returns:
            What the work of this phase reports to.
        """

    def update(self, subject: str, text: str) -> None:
        """Say in a few words what happens on a subject now."""

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None:
        """Say that a subject has finished."""

    def note(self, text: str) -> None:
        """Write a line that stays: a decision that the operator should know."""


class Silent:
    """Reports nothing."""

    def phase(self, *_: object) -> AbstractContextManager[Silent]:
        return nullcontext(self)

    def update(self, subject: str, text: str) -> None: ...

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None: ...

    def note(self, text: str) -> None: ...
