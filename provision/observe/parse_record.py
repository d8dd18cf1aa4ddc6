"""A machine's record, as the probe printed it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from provision.model.paths import NEW


@dataclass(frozen=True)
class Record:
    """A machine's record (`provision.model.paths`): the fields of each line, by kind."""

    lines: tuple[tuple[str, ...], ...]

    def of(self, kind: str, fields: int) -> list[tuple[str, ...]]:
        """The fields of all lines of a kind, without the kind. Lines with fewer fields are ignored.

        Args:
            fields: the minimum number of fields, without the kind.
        """
        return [line[1:] for line in self.lines if line[0] == kind and len(line) > fields]

    def components(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Component -> its lines."""
        lines: dict[str, list[tuple[str, ...]]] = {}
        component = ""
        for line in self.lines:
            if line[0] == "component":
                component = line[1]
            # A killed run may have left an unfinished record beside the real one.
            elif len(line) > 1 and not component.endswith(NEW):
                lines.setdefault(component, []).append(line)
        return {name: tuple(found) for name, found in lines.items()}
