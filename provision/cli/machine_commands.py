"""`clusterctl machines`: make, delete and list machines, apart from the cluster on them."""

from __future__ import annotations

from dataclasses import asdict

import typer

from provision.cli.confirm import confirm
from provision.cli.console import out
from provision.cli.options import Inventory, Output, OutputOption, Yes, print_json
from provision.cli.progress import progress

app = typer.Typer(help="Make, delete and list machines.", no_args_is_help=True)


@app.command(epilog="Example: clusterctl machines up inventories/ha.py")
def up(inventory: Inventory) -> None:
    """Make missing machines, and start stopped machines."""
    from provision.inventory import read
    from provision.local import changes
    from provision.machines.sources import source_of

    draft = read(inventory)
    changes.begin(f"which machines {draft.name} has")
    source_of(draft).create(draft, progress())


@app.command(epilog="Example: clusterctl machines down inventories/ha.py")
def down(inventory: Inventory, yes: Yes = False) -> None:
    """Delete the machines that clusterctl made, with all their data."""
    from provision.inventory import read
    from provision.local import changes
    from provision.machines.sources import source_of

    draft = read(inventory)
    question = f"This deletes the machines of {draft.name} with all their data. Delete them?"
    confirm(f"delete the machines of {draft.name}", yes=yes, question=question)
    changes.begin(f"which machines {draft.name} has")
    source_of(draft).destroy(draft, progress())


@app.command("list", epilog="Example: clusterctl machines list inventories/ha.py -o json")
def list_(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Show the machines, their addresses and states."""
    from rich.table import Table

    from provision.inventory import read
    from provision.machines.sources import source_of

    draft = read(inventory)
    statuses = source_of(draft).status(draft)
    roles = {host.name: sorted(host.roles) for host in draft.hosts}
    if output is Output.JSON:
        print_json([{**asdict(s), "roles": roles[s.name]} for s in statuses])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "ROLES", "STATE", "ADDRESS", "SSH"):
        table.add_column(heading)
    for status in statuses:
        table.add_row(
            status.name, ", ".join(roles[status.name]), status.state, status.address, status.ssh
        )
    out.print(table)
