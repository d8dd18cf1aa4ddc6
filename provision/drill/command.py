"""`clusterctl drill`: test which faults a cluster survives."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from provision.cli.console import err
from provision.cli.options import Inventory, Output, OutputOption, print_json
from provision.cli.progress import progress
from provision.model.errors import UnhealthyError

app = typer.Typer()


@app.command(epilog="Example: clusterctl drill inventories/ha.py --only leader-cut-off")
def drill(
    inventory: Inventory,
    only: Annotated[
        list[str], typer.Option(metavar="NAME", help="Only this fault. May be repeated.")
    ] = [],
    runs: Annotated[int, typer.Option(min=1, help="How many times each fault happens.")] = 1,
    output: OutputOption = Output.TABLE,
) -> None:
    """Test which faults a cluster like yours survives.

    The command makes a lab with the same inventory. Your own machines are not changed. For each fault, the command measures how long writes fail,
    through the API's address and through a node's own proxy, and how long the cluster needs to
    recover. Then it looks for each acknowledged write.

    Exit code 11: an acknowledged write is lost, or the cluster did not recover.
    """
    from provision.drill import drill as drills
    from provision.drill.table import show_results
    from provision.inventory import read
    from provision.local import changes
    from provision.local.runlog import RunLog

    if unknown := sorted(set(only) - set(drills.NAMES)):
        message = f"no fault {', '.join(unknown)}; the faults are {', '.join(drills.NAMES)}"
        raise typer.BadParameter(message, param_hint="--only")
    log = RunLog.create(f"{read(inventory).name}-drill")
    err.print(f"log: {log.path}", style="dim", soft_wrap=True)
    changes.begin("the drill's lab")
    results = drills.drill(inventory, only or drills.NAMES, runs, progress(), log)
    if output is Output.JSON:
        print_json([{**asdict(r), "survived": r.survived} for r in results])
    else:
        show_results(results)
    if not all(result.survived for result in results):
        raise typer.Exit(UnhealthyError.exit_code)
