"""What long work reports while it runs. The command line shows it; tests collect it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """One phase at a time; within it, a line for each machine (or thing) that is worked on."""

    def phase(
        self, name: str, summary: str, subjects: tuple[str, ...]
    ) -> AbstractContextManager[None]:
        """A phase on these machines (or things); it ends with the `with`, whatever happens."""

    def update(self, subject: str, text: str) -> None:
        """What happens on one of them now, a few words."""

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None:
        """One of them has finished."""

    def note(self, text: str) -> None:
        """A line that stays: a decision the user should know of."""


class Silent:
    """Reports nothing."""

    def phase(self, *_: object) -> AbstractContextManager[None]:
        return nullcontext()

    def update(self, subject: str, text: str) -> None: ...

    def done(self, subject: str, text: str = "", *, failed: bool = False) -> None: ...

    def note(self, text: str) -> None: ...
