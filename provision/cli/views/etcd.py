"""Members of etcd and snapshots, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

from provision.cli.console import err, out
from provision.commands.etcd.copies import Copy
from provision.commands.etcd.status import Member
from provision.model.errors import Finding


def show_members(cluster: str, members: Iterable[Member], findings: Iterable[Finding]) -> None:
    """Print a row for each member, then what is wrong and what to do."""
    bad = any(finding.fatal for finding in findings)
    word = Text("not healthy", "bold red") if bad else Text("healthy", "bold green")
    out.print(Text.assemble(("etcd of ", ""), (cluster, "bold"), "  ", word))
    table = Table(box=None, pad_edge=False)
    for heading in ("MEMBER", "ID", "ROLE", "VERSION", "SIZE", "IN USE", "REVISION", "ALARMS"):
        table.add_column(heading, overflow="fold")
    for m in members:
        if not m.answers:
            table.add_row(m.machine, Text("does not answer", "red"))
            continue
        table.add_row(
            m.machine,
            m.id,
            "leader" if m.leader else "",
            m.version,
            f"{m.size / 1024**2:.1f} MiB",
            f"{m.in_use / 1024**2:.1f} MiB",
            str(m.revision),
            Text(" ".join(m.alarms), "red"),
        )
    out.print(table)
    for finding in findings:
        mark = Text("✗ ", "red") if finding.fatal else Text("! ", "yellow")
        out.print(Text.assemble(mark, f"{finding.where}: {finding.what}"), soft_wrap=True)
        if finding.hint:
            out.print(Text(f"  {finding.hint}", "yellow"), soft_wrap=True)


def show_copies(copies: Iterable[Copy], silent: Mapping[str, str]) -> None:
    """Print a row for each snapshot, then the places that did not answer."""
    table = Table(box=None, pad_edge=False)
    for heading in ("SNAPSHOT", "WHERE", "SIZE"):
        table.add_column(heading, overflow="fold")
    for copy in copies:
        table.add_row(copy.name, copy.where, f"{copy.size / 1024**2:.1f} MiB")
    out.print(table)
    for where, why in silent.items():
        err.print(Text(f"{where} does not answer: {why}", "yellow"), soft_wrap=True)
