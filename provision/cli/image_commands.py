"""`clusterctl images`: the operator's own images, in the masters' registries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provision.cli.console import out
from provision.cli.options import Inventory
from provision.cli.progress import progress

app = typer.Typer(help="Copy your own images to the cluster.", no_args_is_help=True)


@app.command(epilog="Example: clusterctl images push inventories/ha.py registry.example.com/app:1")
def push(
    inventory: Inventory,
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="The image's name in podman or Docker on this computer."
        ),
    ],
    archive: Annotated[
        Path | None,
        typer.Option(help="Read the image from this file, which `podman save` has written."),
    ] = None,
) -> None:
    """Copy an image from this computer to the registry of every master."""
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.commands.images import push_image

    with open_session(inventory, progress()) as session, hold(session, "images push"):
        names = push_image(session, image, archive)
        out.print(f"{image} is in the registries of {', '.join(names)}.")
