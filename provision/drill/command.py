"""`clusterctl drill`: see what a cluster like yours survives."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, OutputOption, print_json
from provision.cli.progress import progress
from provision.model.errors import UnhealthyError

if TYPE_CHECKING:
    from provision.drill.measure import Result


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: clusterctl drill inventories/ha.py --only leader-cut-off")(drill)


def drill(
    inventory: Inventory,
    only: Annotated[
        list[str], typer.Option(metavar="NAME", help="Only this fault; may be repeated.")
    ] = [],
    runs: Annotated[int, typer.Option(min=1, help="How often each fault happens.")] = 1,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let everything go wrong that can, in a lab made like your machines; yours are not touched.

    For each fault: how long until writes worked again, by the API's address and by a node's own
    proxy; how long until all was well; and whether a write that was acknowledged is lost.
    Exit code 11: one is, or the cluster did not get over a fault.
    """
    from provision import drill as drills
    from provision.inventory import read
    from provision.local.runlog import RunLog

    if unknown := sorted(set(only) - set(drills.NAMES)):
        message = f"{', '.join(unknown)}: there are {', '.join(drills.NAMES)}"
        raise typer.BadParameter(message, param_hint="--only")
    log = RunLog.create(f"{read(inventory).name}-drill")
    err.print(f"log: {log.path}", style="dim", soft_wrap=True)
    results = drills.drill(inventory, only or drills.NAMES, runs, progress(), log)
    if output is Output.JSON:
        print_json([{**asdict(r), "survived": r.survived} for r in results])
    else:
        _show(results)
    if not all(result.survived for result in results):
        raise typer.Exit(UnhealthyError.exit_code)


def _show(results: tuple[Result, ...]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("FAULT", no_wrap=True)
    table.add_column("WHERE")
    for heading in ("WRITES BACK", "BY LOOPBACK", "ALL WELL", "WRITES", "LOST"):
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
