"""`clusterctl images`: a user's own images, onto the masters' registries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provision.cli.console import out
from provision.cli.options import Inventory
from provision.cli.progress import progress

app = typer.Typer(help="Give the cluster images of your own.", no_args_is_help=True)


@app.command(epilog="Example: clusterctl images push inventories/ha.py registry.example.com/app:1")
def push(
    inventory: Inventory,
    image: Annotated[str, typer.Argument(help="Its name, in podman or Docker on this computer.")],
    archive: Annotated[
        Path | None, typer.Option(help="Take it from this file, as `podman save` writes it.")
    ] = None,
) -> None:
    """Copy an image from this computer's container engine to the registry of every master."""
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.commands.images import push_image

    live = progress()
    with open_session(inventory, live) as session, hold(session, "images push"):
        names = push_image(session, image, archive)
        out.print(f"{image} is on {', '.join(names)}.")
