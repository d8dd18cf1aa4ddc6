"""What the CIS checks found, as a table and as data."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from provision.cli.console import err, out
from provision.commands.audit.judge import Report, Verdict


def audit_as_json(report: Report) -> dict[str, Any]:
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


def show_audit(report: Report) -> None:
    """Print each check, then each problem with its remedy."""
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
        err.print(Text(f"{machine} could not be checked: {reason}", "red"), soft_wrap=True)
    made = [v for v in report.verdicts if v.machines]
    held = [v for v in made if not v.problems]
    scored = sum(v.check.scored for v in made)
    out.print(
        f"{len(held)} of {len(made)} checks pass: "
        f"{sum(v.check.scored for v in held)} of {scored} scored checks, "
        f"{len(held) - sum(v.check.scored for v in held)} of {len(made) - scored} other checks."
    )


def _mark(verdict: Verdict) -> Text:
    if not verdict.machines:
        return Text("-", "dim")
    return Text("no", "red") if verdict.problems else Text("yes", "green")


def _machines(verdict: Verdict) -> str:
    failing = list(dict.fromkeys(problem.machine for problem in verdict.problems))
    return f"not {', '.join(failing)}" if failing else ", ".join(verdict.machines)
