"""Results of a drill, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from provision.cli.console import out
from provision.drill.measure import Result


def show_results(results: Iterable[Result]) -> None:
    """Print a row for each fault."""
    table = Table(box=None, pad_edge=False)
    table.add_column("FAULT", no_wrap=True)
    table.add_column("WHERE")
    for heading in ("WRITES FAILED", "BY LOOPBACK", "RECOVERY", "WRITES", "LOST"):
        table.add_column(heading, justify="right")
    table.add_column("", overflow="fold")
    for r in results:
        written = bool(r.acknowledged)
        table.add_row(
            r.fault,
            r.victim,
            _seconds(r.endpoint),
            _seconds(r.loopback),
            _seconds(r.healed),
            str(r.acknowledged) if written else "",
            Text(str(len(r.lost)), "red" if r.lost else "") if written else "",
            _seen(r) if r.survived else Text(r.problem or r.seen, "red"),
        )
    out.print(table)


def _seen(r: Result) -> str:
    given_up = f"{r.given_up} writes given up" if r.given_up else ""
    return "; ".join(text for text in (r.seen, given_up) if text)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
