"""`clusterctl trust`: the cluster's keys on this computer."""

from __future__ import annotations

import typer

from provision.cli.console import err, out
from provision.cli.options import Inventory
from provision.cli.progress import progress
from provision.model.commands import clusterctl

app = typer.Typer(help="Copy the cluster's keys to this computer.", no_args_is_help=True)


@app.command(epilog="Example: clusterctl trust fetch inventories/machines.py")
def fetch(inventory: Inventory) -> None:
    """Copy the cluster's keys from a master to this computer.

    One master is enough. Use it on a computer that has never managed this cluster, or that has lost its state. After it,
    all other commands work on this computer.
    """
    from provision.apply.session import open_session
    from provision.commands.trust_fetch import fetch_trust

    with open_session(inventory, progress()) as session:
        fetched = fetch_trust(session)
        for name, why in fetched.passed_over.items():
            err.print(f"{name} was not used: {why}", style="yellow", soft_wrap=True)
        what = f"The keys of {session.cluster.name} (authority {fetched.trust.fingerprint[:12]})"
        where = ", ".join(fetched.sources)
        if fetched.cache == "the same":
            out.print(f"{what} on this computer are the same as on {where}.", soft_wrap=True)
        else:
            out.print(f"{what} were copied from {where} to {session.cache.pki}.", soft_wrap=True)
        out.print(f"Next: {clusterctl('status', inventory)}", soft_wrap=True)
