"""`clusterctl secrets`: the key that encrypts Secrets in etcd."""

from __future__ import annotations

import typer

from provision.cli.certs_commands import rotate
from provision.cli.options import Inventory, Output, OutputOption, Yes

app = typer.Typer(help="Replace the key that encrypts Secrets in etcd.", no_args_is_help=True)


@app.command("rotate-key", epilog="Example: clusterctl secrets rotate-key inventories/ha.py")
def rotate_key(inventory: Inventory, yes: Yes = False, output: OutputOption = Output.TABLE) -> None:
    """Replace the key that encrypts Secrets in etcd.

    The command also encrypts all Secrets with the new key. The stages: each master can read with the new key; each master writes with it; all Secrets are
    written again; each master forgets the old key. If a run was stopped, run the same command
    again: it continues.
    """
    from provision.pki.trust import Part

    rotate(inventory, "secrets rotate-key", (Part.ENCRYPTION,), yes=yes, output=output)
