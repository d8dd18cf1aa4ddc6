"""The program that looks at a machine, and its answer as a value. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files as resources

import yaml

from provision.commands.audit.model import Check, Files, FileSeen, Seen
from provision.model.sections import Sections

_GIVEN = re.compile(r"^\{(?P<unit>[a-z-]+) (?P<flag>--)?(?P<name>[A-Za-z-]+)\}$")


def program(checks: Iterable[Check]) -> str:
    """The shell program that looks at everything that the checks need."""
    patterns = dict.fromkeys(
        pattern
        for check in checks
        for test in check.tests
        if isinstance(test, Files)
        for pattern in test.paths
    )
    looks = "".join(f"look {shlex.quote(p)} {_words(p)} 2>/dev/null\n" for p in patterns)
    return f"{{\n{_probe()}{looks}}} </dev/null 2>/dev/null\nprintf '@@ end\\n'\n"


def _words(pattern: str) -> str:
    """The pattern as words for a shell: files that match it."""
    if given := _GIVEN.match(pattern):
        verb = "given" if given["flag"] else "written"
        return f'"$({verb} {given["unit"]} {given["name"]})"'
    directory, everywhere, name = pattern.partition("/**")
    if not everywhere:
        return shlex.quote(pattern)
    if name == "/":
        return f"$(below {shlex.quote(directory)})"
    only = f" -name {shlex.quote(name.removeprefix('/'))}" if name else ""
    return f"$(below {shlex.quote(directory)} -type f{only})"


@cache
def _probe() -> str:
    return resources(__package__).joinpath("probe.sh").read_text()


def parse(output: str) -> Seen:
    """Read what the program printed.

    Raises:
        ValueError: it is incomplete, or cannot be read.
    """
    said = Sections.of(output)
    if "end" not in said:
        message = "the answer is incomplete"
        raise ValueError(message)
    return Seen(
        arguments={name: tuple(said.lines(s)) for name, s in said.named("arguments").items()},
        environment={name: said.values(s) for name, s in said.named("environment").items()},
        config={
            name: dict(_flat(yaml.safe_load(said.text(s)), ""))
            for name, s in said.named("config").items()
        },
        files={
            pattern: tuple(_file(line) for line in said.lines(s))
            for pattern, s in said.named("files").items()
        },
    )


def _file(line: str) -> FileSeen:
    mode, owner, path = line.split(" ", 2)
    return FileSeen(path, int(mode, 8), owner)


def _flat(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ",".join(str(item) for item in value)
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)
