"""`clusterctl ec2`: what only clusters on EC2 have."""

from __future__ import annotations

from typing import Annotated

import typer

from provision.cli.console import err, out
from provision.cli.options import Inventory
from provision.model.errors import RefusedError

app = typer.Typer(help="What only clusters on EC2 have.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Typer would make the only command of a group the group itself."""


@app.command(epilog="Example: clusterctl ec2 scale inventories/ec2.py 5")
def scale(
    inventory: Inventory,
    workers: Annotated[int, typer.Argument(metavar="N", help="How many workers it is to have.")],
) -> None:
    """Give the Auto Scaling group another size: workers join and leave by themselves."""
    from provision.inventory import read
    from provision.machines import Cloud
    from provision.machines.sources import source_of

    draft = read(inventory)
    source = source_of(draft)
    if not isinstance(source, Cloud):
        message = f"the machines of {draft.name} are not on EC2"
        raise RefusedError(message, hint=f"clusterctl node add {inventory} NAME adds one")
    was = source.scale(draft, workers)
    if was == workers:
        out.print(f"The group of {draft.name} has {workers} workers already.")
    elif was < workers:
        out.print(
            f"The group of {draft.name} grows from {was} to {workers} workers. New ones join by "
            "themselves, in some minutes.",
            soft_wrap=True,
        )
    else:
        out.print(
            f"The group of {draft.name} shrinks from {was} to {workers} workers. EC2 chooses and ends "
            "them at once, their pods are not moved before; their Nodes go by themselves.",
            soft_wrap=True,
        )
    if workers != draft.ec2.group:
        err.print(
            f'{inventory} says "group": {draft.ec2.group}: the next `up` brings that back, and its '
            f"plan says so. To keep {workers}, write it there.",
            style="yellow",
            soft_wrap=True,
        )
