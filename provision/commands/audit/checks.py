"""checks.yaml as values. Pure.

Each check has `id`, `place` (a `Place`), `what` must hold, `how` a cluster meets it, `scored` (left
out: true), and `settings` or `files`:

    settings   process, flags, field, default: see `Setting`; must: a rule, see `rule`
    files      paths, mode, owner, optional: see `Files`; `unit: NAME` stands for the paths of a
               unit's file and its drop-ins
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files as resources
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from provision.commands.audit.model import (
    AtLeast,
    Check,
    Files,
    Has,
    HasNot,
    Is,
    IsNotSet,
    IsSet,
    NotZero,
    Only,
    Place,
    Rule,
    Setting,
    StartsWith,
)
from provision.model import paths

_ALONE: Mapping[str, Rule] = {"be set": IsSet(), "not be set": IsNotSet(), "not be 0": NotZero()}
# What comes after the colon: its type, and the rule that it makes.
_WITH: Mapping[str, tuple[type, Callable[[Any], Rule]]] = {
    "be": (str, Is),
    "contain": (str, Has),
    "not contain": (str, HasNot),
    "contain only": (list, lambda items: Only(tuple(items))),
    "be at least": (int, AtLeast),
    "begin with": (str, StartsWith),
}


def rule(written: object) -> Rule:
    """A rule as the file has it: `be set`, `{be: "false"}`, `{contain only: [a, b]}`.

    Raises:
        ValueError: there is no such rule.
    """
    if isinstance(written, str) and written in _ALONE:
        return _ALONE[written]
    if isinstance(written, dict) and len(written) == 1:
        ((words, operand),) = written.items()
        if words in _WITH and isinstance(operand, _WITH[words][0]):
            return _WITH[words][1](operand)
    message = f"there is no rule {written!r}"
    raise ValueError(message)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class _Setting(_Entry):
    process: str
    flags: tuple[str, ...] = ("",)
    field: str = ""
    default: str | None = None
    must: Annotated[Rule, PlainValidator(rule)]

    def values(self) -> Iterator[Setting]:
        for flag in self.flags:
            yield Setting(self.process, flag, self.must, self.field, self.default)


class _Files(_Entry):
    unit: str = ""
    paths: tuple[str, ...] = ()
    mode: str = Field(default="", pattern="^(0[0-7]{3})?$")
    owner: str = Field(default="", pattern="^([a-z]+:[a-z]+)?$")
    optional: bool = False

    @model_validator(mode="after")
    def _complete(self) -> _Files:
        if bool(self.unit) == bool(self.paths) or not (self.mode or self.owner):
            message = "needs either unit or paths, and mode or owner"
            raise ValueError(message)
        return self

    def value(self) -> Files:
        unit = f"{paths.UNITS}/{self.unit}.service"
        return Files(
            (unit, f"{unit}.d/**") if self.unit else self.paths,
            mode=int(self.mode, 8) if self.mode else None,
            owner=self.owner,
            optional=self.optional,
        )


class _Check(_Entry):
    id: str = Field(pattern=r"^\d+(\.\d+)+$")
    place: Place
    what: str
    how: str
    scored: bool = True
    settings: tuple[_Setting, ...] = ()
    files: tuple[_Files, ...] = ()

    @model_validator(mode="after")
    def _tests(self) -> _Check:
        if not (self.settings or self.files):
            message = "tests nothing: it needs settings or files"
            raise ValueError(message)
        return self

    def value(self) -> Check:
        tests: list[Setting | Files] = [s for entry in self.settings for s in entry.values()]
        tests += [entry.value() for entry in self.files]
        return Check(self.id, self.place, self.what, tuple(tests), self.how, self.scored)


class _Table(_Entry):
    checks: tuple[_Check, ...]
    # Only for YAML's anchors.
    texts: dict[str, str] = {}
    ciphers: dict[str, list[str]] = {}


def load(text: str) -> tuple[Check, ...]:
    """Read a table of checks.

    Raises:
        ValueError: it is not one; pydantic's message names the place.
    """
    table: Any = yaml.safe_load(text)
    return tuple(check.value() for check in _Table.model_validate(table).checks)


@cache
def checks() -> tuple[Check, ...]:
    """All checks, in the benchmark's order."""
    return load(resources(__package__).joinpath("checks.yaml").read_text())
