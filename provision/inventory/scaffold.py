"""The inventory that `clusterctl init` prints; it can be used at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from provision.inventory import rules
from provision.inventory.settings import ClusterData
from provision.inventory.wording import show, validate
from provision.model.errors import Finding, InventoryError

_TARGET = re.compile(
    r"((?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
    r"(:(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class _Target:
    """`[USER@]ADDRESS[:PORT]`; a part that is not given is empty, or 0."""

    user: str
    host: str
    port: int

    @property
    def label(self) -> str:
        """The hostname in a DNS name; empty for an address."""
        label = self.host.partition(".")[0]
        return label if rules.is_hostname(label) and not rules.is_address(self.host) else ""


def lab(name: str, masters: int = 3, workers: int = 2) -> str:
    """Write an inventory of machines that the lab makes.

    Args:
        name: the cluster's name.
        masters: how many.
        workers: how many; with none, the masters work too.

    Raises:
        InventoryError: no name, or numbers that make no cluster.
    """
    _refuse(_bad(name, masters))
    settings = ['    "machines": "lab",  # containers on this computer']
    if masters > 1:
        settings.append('    "api": {"vip": "auto"},  # an address that moves between the masters')
    lines = _cluster(name, settings, alone=not workers)
    lines.append(f"masters = [{_numbered('m', masters)}]")
    if workers:
        lines.append(f"workers = [{_numbered('w', workers)}]")
    return "\n".join(lines) + "\n"


def machines(name: str, masters: Sequence[str], workers: Sequence[str] = ()) -> str:
    """Write an inventory of machines that exist.

    Args:
        name: the cluster's name.
        masters: each `[USER@]ADDRESS[:PORT]`.
        workers: likewise; with none, the masters work too.

    Raises:
        InventoryError: no name, or machines that make no cluster.
    """
    findings = _bad(name, len(masters))
    groups = {
        "masters": [_parse(target, findings) for target in masters],
        "workers": [_parse(target, findings) for target in workers],
    }
    _refuse(findings)
    settings = []
    if len(masters) > 1:
        settings = [
            "    # A free address of the machines' network; it moves between the masters:",
            '    # "api": {"vip": "192.0.2.10"},',
        ]
    labels = [target.label for group in groups.values() for target in group]
    by_label = all(labels) and len(set(labels)) == len(labels)
    lines = _cluster(name, settings, alone=not workers)
    lines.append("# Names are the machines' hostnames; host keys are those in ~/.ssh/known_hosts.")
    for group, targets in groups.items():
        lines += _group(group, targets, by_label=by_label) if targets else []
    return "\n".join(lines) + "\n"


def _bad(name: str, masters: int) -> list[Finding]:
    _, findings, _ = validate(ClusterData, {"name": name}, "cluster", {"name": "unnamed"})
    if masters < 1 or masters == 2:
        hint = "use 1 master, or 3 to survive the loss of one"
        findings.append(Finding("masters", f"{show(masters)} masters make no cluster", hint))
    return findings


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        raise InventoryError("these arguments make no inventory", findings)


def _cluster(name: str, settings: Iterable[str], *, alone: bool) -> list[str]:
    work = ['    "masters_schedulable": True,  # there are no workers'] if alone else []
    return [
        "# Next: clusterctl up THIS_FILE. All fields: docs/inventory.md.",
        "cluster = {",
        f'    "name": "{name}",',
        *settings,
        *work,
        "}",
        "",
    ]


def _numbered(letter: str, count: int) -> str:
    return ", ".join(f'"{letter}{number}"' for number in range(1, count + 1))


def _group(group: str, targets: Sequence[_Target], *, by_label: bool) -> list[str]:
    lines = [f"{group} = ["]
    for number, target in enumerate(targets, start=1):
        name = target.label if by_label else f"{group[0]}{number}"
        lines.append(f'    ("{name}", {{{", ".join(_data(target))}}}),')
        if ":" in target.host:
            lines[-1] += "  # add its IPv4 address: nodes use IPv4"
    return [*lines, "]"]


def _data(target: _Target) -> list[str]:
    data = [f'"ssh_hostname": "{target.host}"']
    if target.port:
        data.append(f'"ssh_port": {target.port}')
    if target.user not in {"", "root"}:
        data += [f'"ssh_user": "{target.user}"', '"_sudo": True']
    return data


def _parse(target: str, findings: list[Finding]) -> _Target:
    match = _TARGET.fullmatch(target)
    if match is None or not 1 <= int(match["port"] or 22) <= 65535:
        hint = "write [USER@]ADDRESS[:PORT], such as admin@192.0.2.11 or admin@[2001:db8::11]:22"
        findings.append(Finding("machines", f"{show(target)} is not a machine", hint))
        return _Target("", "", 0)
    return _Target(match["user"] or "", match["host"].strip("[]"), int(match["port"] or 0))
