"""(checks, what the machines answered) -> verdicts, each with what to do. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from provision.commands.audit.checks import checks
from provision.commands.audit.model import Check, Files, FileSeen, Seen, Setting
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl

_SHOWN = 3  # files named one by one


@dataclass(frozen=True)
class Problem:
    """Why a check fails on one machine.

    Attributes:
        what: what was found, and what is required.
        todo: what to type next.
    """

    machine: str
    what: str
    todo: str


@dataclass(frozen=True)
class Verdict:
    """The result of one check on all its machines.

    Attributes:
        machines: the machines that were checked.
        problems: empty: the check holds.
    """

    check: Check
    machines: tuple[str, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Report:
    """All verdicts, in the order of the checks.

    Attributes:
        silent: machine -> why it did not answer.
    """

    verdicts: tuple[Verdict, ...]
    silent: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not self.silent and not any(verdict.problems for verdict in self.verdicts)


def judge(cluster: Cluster, seen: Mapping[str, Seen], silent: Mapping[str, str]) -> Report:
    """Judge every check on each of its machines that answered."""
    verdicts = []
    for check in checks():
        asked = [m for m in cluster.machines if m.name in seen and check.place.includes(cluster, m)]
        problems = [
            problem
            for machine in asked
            for test in check.tests
            for problem in _problems(test, cluster, machine, seen[machine.name])
        ]
        verdicts.append(Verdict(check, tuple(m.name for m in asked), tuple(problems)))
    return Report(tuple(verdicts), silent)


def value(setting: Setting, seen: Seen) -> str | None:
    """The value in force: of the flag, else the variable, else the file, else the default."""
    flag = f"--{setting.flag}"
    found: str | None = None
    arguments = seen.arguments.get(setting.process, ())
    for index, argument in enumerate(arguments):
        name, equals, given = argument.partition("=")
        if name != flag:
            continue
        follows = arguments[index + 1 : index + 2]
        alone = not follows or follows[0].startswith("--")
        found = given if equals else "true" if alone else follows[0]
    if found is None:
        variable = f"{setting.process}-{setting.flag}".upper().replace("-", "_")
        found = seen.environment.get(setting.process, {}).get(variable)
    if found is None and setting.field:
        found = seen.config.get(setting.process, {}).get(setting.field)
    return setting.default if found is None else found


def _problems(
    test: Setting | Files, cluster: Cluster, machine: Machine, seen: Seen
) -> list[Problem]:
    if isinstance(test, Setting):
        return _setting(test, cluster, machine, seen)
    return _files(test, cluster, machine, seen)


def _setting(setting: Setting, cluster: Cluster, machine: Machine, seen: Seen) -> list[Problem]:
    process, inventory = setting.process, cluster.inventory
    if process not in seen.arguments:
        return [
            Problem(machine.name, f"{process} does not run", clusterctl("status", inventory)),
        ]
    there = value(setting, seen)
    if setting.rule.holds(there):
        return []
    name = f"--{setting.flag}" if setting.flag else setting.field
    state = "is not set" if there is None else f"is {there}"
    extra: Mapping[str, str] = cluster.extra_args.get(process, {})  # type: ignore[call-overload]
    todo = (
        f"take {setting.flag!r} out of extra_args in {inventory}, then {clusterctl('up', inventory)}"
        if setting.flag in extra
        else f"{clusterctl('up', inventory)} restores its files; if that changes nothing, look "
        f"for a drop-in: {clusterctl('ssh', inventory, machine.name, '--', 'systemctl', 'cat', process)}"
    )
    return [Problem(machine.name, f"{process}: {name} {state}, and must {setting.rule}", todo)]


def _files(files: Files, cluster: Cluster, machine: Machine, seen: Seen) -> list[Problem]:
    there = [file for pattern in files.paths for file in seen.files.get(pattern, ())]
    ssh = f"{clusterctl('ssh', cluster.inventory, machine.name, '--')}"
    if not there and not files.optional:
        what = f"{files.paths[0]} does not exist"
        return [Problem(machine.name, what, clusterctl("up", cluster.inventory))]
    problems = []
    if files.mode is not None:
        wide = [file for file in there if file.mode & ~files.mode]
        if wide:
            what = f"{_names(wide)}: {wide[0].mode:04o}, and must be {files.mode:04o} or less"
            command = f"chmod {files.mode:o} {_paths(wide)}"
            problems.append(Problem(machine.name, what, f"{ssh} {command}"))
    if files.owner:
        others = [file for file in there if file.owner != files.owner]
        if others:
            what = (
                f"{_names(others)}: owned by {others[0].owner}, and must be owned by {files.owner}"
            )
            command = f"chown {files.owner} {_paths(others)}"
            problems.append(Problem(machine.name, what, f"{ssh} {command}"))
    return problems


def _names(files: list[FileSeen]) -> str:
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return ", ".join(file.path for file in files[:_SHOWN]) + more


def _paths(files: list[FileSeen]) -> str:
    return shlex.join(file.path for file in files)
