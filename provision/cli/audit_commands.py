"""`audit`: the checks of the CIS benchmark, made on the machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, OutputOption, print_json
from provision.cli.progress import progress
from provision.model.errors import UnhealthyError

if TYPE_CHECKING:
    from provision.commands.audit.judge import Report, Verdict


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: clusterctl audit inventories/ha.py")(audit)


def audit(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Make the checks of the CIS benchmark on the machines. Exit code 11: one does not hold.

    Reads only, one round trip each: what the components run with, and who may read their files.
    """
    from provision.apply.session import open_session
    from provision.commands.audit.look import run_checks

    with open_session(inventory, progress()) as session:
        report = run_checks(session)
    if output is Output.JSON:
        print_json(_as_json(report))
    else:
        _show(report)
    if not report.holds:
        raise typer.Exit(UnhealthyError.exit_code)


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "holds": report.holds,
        "silent": dict(report.silent),
        "checks": [
            {
                "id": verdict.check.id,
                "what": verdict.check.what,
                "scored": verdict.check.scored,
                "holds": not verdict.problems,
                "machines": list(verdict.machines),
                "problems": [vars(problem) for problem in verdict.problems],
            }
            for verdict in report.verdicts
        ],
    }


def _show(report: Report) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("CIS", "", "WHAT MUST HOLD", "MACHINES"):
        table.add_column(heading, overflow="fold")
    for verdict in report.verdicts:
        table.add_row(verdict.check.id, _mark(verdict), verdict.check.what, _machines(verdict))
    out.print(table)
    out.print()
    for verdict in report.verdicts:
        for problem in verdict.problems:
            head = f"{verdict.check.id} {problem.machine}: "
            out.print(Text(f"{head}{problem.what}", "red"), soft_wrap=True)
            out.print(Text(f"  {problem.todo}", "yellow"), soft_wrap=True)
    for machine, reason in report.silent.items():
        err.print(Text(f"{machine} could not be asked: {reason}", "red"), soft_wrap=True)
    made = [v for v in report.verdicts if v.machines]
    held = [v for v in made if not v.problems]
    scored = sum(v.check.scored for v in made)
    out.print(
        f"{len(held)} of {len(made)} checks hold: "
        f"{sum(v.check.scored for v in held)} of {scored} scored ones, "
        f"{len(held) - sum(v.check.scored for v in held)} of {len(made) - scored} others."
    )


def _mark(verdict: Verdict) -> Text:
    if not verdict.machines:
        return Text("-", "dim")
    return Text("no", "red") if verdict.problems else Text("yes", "green")


def _machines(verdict: Verdict) -> str:
    failing = list(dict.fromkeys(problem.machine for problem in verdict.problems))
    return f"not {', '.join(failing)}" if failing else ", ".join(verdict.machines)
