"""How errors are shown: what failed, where, why, and what to type next."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from provision.cli.console import err
from provision.model.errors import ClusterctlError, Finding, FindingsError, PhaseError


def show_error(error: ClusterctlError) -> None:
    """Print an error on standard error."""
    if isinstance(error, FindingsError):
        err.print(Text(error.summary, "bold red"))
        show_findings(error.findings)
    elif isinstance(error, PhaseError):
        err.print(Text(f"{error.phase} failed on {_machines(len(error.failures))}", "bold red"))
        for failure in error.failures:
            err.print(Text.assemble(("  " + failure.machine, "bold"), ": ", failure.step))
            _indented(failure.cause, "red")
            if failure.journal:
                err.print(Text("    last lines of the journal:", "dim"))
                _indented(failure.journal, "dim")
            if failure.hint:
                _indented(failure.hint, "yellow")
    else:
        err.print(Text(error.message, "bold red"), soft_wrap=True)
    if error.hint:
        err.print(Text(error.hint, "yellow"), soft_wrap=True)


def show_findings(findings: tuple[Finding, ...]) -> None:
    """Print all findings on standard error: a table on a terminal, lines elsewhere."""
    if not err.is_terminal:
        for finding in findings:
            word = "error" if finding.fatal else "warning"
            err.print(Text(f"{word}: {finding}"), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, show_edge=False)
    for heading in ("", "WHERE", "WHAT", "WHAT TO DO"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        mark = Text("error", "red") if finding.fatal else Text("warning", "yellow")
        table.add_row(mark, finding.where, finding.what, finding.hint)
    err.print(table)


def _machines(count: int) -> str:
    return "1 machine" if count == 1 else f"{count} machines"


def _indented(text: str, style: str) -> None:
    for line in text.splitlines():
        err.print(Text(f"    {line}", style), soft_wrap=True)
