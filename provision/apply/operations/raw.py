"""A fact of pyinfra: what a read-only shell program prints."""

from __future__ import annotations

from pyinfra.api.facts import FactBase


class Raw(FactBase[str]):
    """The output of a shell program; empty when it printed nothing."""

    def command(self, program: str) -> str:
        return program

    @staticmethod
    def default() -> str:
        return ""
