"""Output of a program in sections: a line `@@ NAME`, then the section's lines. Pure.

Every program that asks a machine several things prints its answer this way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

MARK = "@@ "


class SectionError(ValueError):
    """A section is missing or malformed; the message names it."""


@dataclass(frozen=True)
class Sections:
    """The sections of an output: name -> lines, empty ones included."""

    sections: Mapping[str, list[str]]

    @staticmethod
    def of(output: str) -> Sections:
        """Read an output. Lines before the first section, as a login's greeting, are ignored."""
        sections: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in output.split("\n"):
            if line.startswith(MARK):
                lines = sections.setdefault(line.removeprefix(MARK).strip(), [])
            else:
                lines.append(line.rstrip("\r"))
        return Sections(sections)

    def __contains__(self, section: str) -> bool:
        return section in self.sections

    def lines(self, section: str, *, required: bool = False) -> list[str]:
        """The lines that are not empty.

        Args:
            required: the section must exist and have such a line; else it may be missing.

        Raises:
            SectionError: the section is required and has no such line.
        """
        lines = [line for line in self.sections.get(section, ()) if line.strip()]
        if required and not lines:
            raise SectionError(f"section {section!r} is missing")
        return lines

    def text(self, section: str) -> str:
        """The lines that are not empty, as one text; empty if the section is missing."""
        return "".join(f"{line}\n" for line in self.lines(section))

    def blocks(self, section: str) -> list[list[str]]:
        """The lines, as groups that empty lines separate."""
        text = "\n".join(self.sections.get(section, ()))
        return [block.split("\n") for block in re.split(r"\n\s*\n", text.strip("\n")) if block]

    def values(self, section: str, *, required: bool = False) -> dict[str, str]:
        """Lines `KEY=VALUE`, as a dictionary; other lines are ignored.

        Raises:
            SectionError: the section is required and missing.
        """
        lines = self.lines(section, required=required)
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def named(self, kind: str) -> dict[str, str]:
        """Sections `KIND NAME`, in their order: NAME -> the name of the section."""
        return {
            section.removeprefix(f"{kind} "): section
            for section in self.sections
            if section.startswith(f"{kind} ")
        }


@contextmanager
def reading(section: str) -> Iterator[None]:
    """Raise an error that names the section, if the block cannot read it.

    Raises:
        SectionError: instead of a ValueError, LookupError or OverflowError.
    """
    try:
        yield
    except SectionError:
        raise
    except (ValueError, LookupError, OverflowError) as error:
        raise SectionError(f"section {section!r}: {error}") from error
