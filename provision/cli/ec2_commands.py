"""`clusterctl ec2`: features that only clusters on EC2 have."""

from __future__ import annotations

from typing import Annotated

import typer

from provision.cli.confirm import confirm
from provision.cli.console import err, out
from provision.cli.options import Inventory, Yes
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError

app = typer.Typer(help="Change the Auto Scaling group of a cluster on EC2.", no_args_is_help=True)


@app.command(epilog="Example: clusterctl ec2 scale inventories/ec2.py 5")
def scale(
    inventory: Inventory,
    workers: Annotated[
        int, typer.Argument(metavar="N", help="The new number of workers in the group.")
    ],
    yes: Yes = False,
) -> None:
    """Change the size of the Auto Scaling group.

    New workers join the cluster without another command.
    """
    from provision.inventory import read
    from provision.local import changes
    from provision.machines import Cloud
    from provision.machines.sources import source_of

    draft = read(inventory)
    source = source_of(draft)
    if not isinstance(source, Cloud):
        message = f"the machines of {draft.name} are not on EC2"
        raise RefusedError(
            message, hint=f"to add a machine: {clusterctl('node', 'add', inventory, 'NAME')}"
        )
    confirm(f"change the group of {draft.name} to {workers} workers", yes=yes)
    changes.begin(f"which machines {draft.name} has")
    was = source.scale(draft, workers)
    if was == workers:
        out.print(f"The group of {draft.name} already has {workers} workers.")
    elif was < workers:
        out.print(
            f"The group of {draft.name} grows from {was} to {workers} workers. The new workers join "
            "the cluster within some minutes.",
            soft_wrap=True,
        )
    else:
        out.print(
            f"The group of {draft.name} shrinks from {was} to {workers} workers. EC2 chooses the "
            "workers and terminates them at once, without a drain. Their Nodes are deleted later.",
            soft_wrap=True,
        )
    if workers != draft.ec2.group:
        err.print(
            f'{inventory} has "group": {draft.ec2.group}. The next `up` changes the group '
            f'back to that size. To keep {workers} workers, write "group": {workers} there.',
            style="yellow",
            soft_wrap=True,
        )
