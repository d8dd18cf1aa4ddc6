"""`clusterctl secrets`: the key that encrypts Secrets in etcd."""

from __future__ import annotations

import typer

from provision.cli.certs_commands import rotate
from provision.cli.options import Inventory, Output, OutputOption, Yes

app = typer.Typer(help="The key that encrypts Secrets in etcd.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The key that encrypts Secrets in etcd."""


@app.command("rotate-key", epilog="Example: clusterctl secrets rotate-key inventories/ha.py")
def rotate_key(inventory: Inventory, yes: Yes = False, output: OutputOption = Output.TABLE) -> None:
    """Replace the key that encrypts Secrets, and encrypt them all with the new one.

    In stages: every master can read it; every master writes with it; all Secrets are written
    again; the old one is forgotten. A run that was stopped goes on where it was.
    """
    from provision.pki.trust import Part

    rotate(inventory, "secrets rotate-key", (Part.ENCRYPTION,), yes=yes, output=output)
