"""`clusterctl trust`: the cluster's keys on this computer."""

from __future__ import annotations

import typer

from provision.cli.console import err, out
from provision.cli.options import Inventory
from provision.cli.progress import progress

app = typer.Typer(help="The cluster's keys on this computer.", no_args_is_help=True)


@app.command(epilog="Example: clusterctl trust fetch inventories/machines.py")
def fetch(inventory: Inventory) -> None:
    """Bring the cluster's keys from its masters to this computer; one that answers is enough.

    For a new operator's computer, or one that has lost its state. Every other command of
    clusterctl works from here then.
    """
    from provision.apply.session import open_session
    from provision.commands.trust_fetch import fetch_trust

    with open_session(inventory, progress()) as session:
        fetched = fetch_trust(session)
        for name, why in fetched.passed_over.items():
            err.print(f"{name}: passed over: {why}", style="yellow", soft_wrap=True)
        what = f"the keys of {session.cluster.name} (authority {fetched.trust.fingerprint[:12]})"
        where = ", ".join(fetched.sources)
        if fetched.cache == "the same":
            out.print(f"{what} were here already, the same as on {where}.", soft_wrap=True)
        else:
            out.print(f"{what} are here now, from {where}: {session.cache.pki}", soft_wrap=True)
        out.print(f"Next: clusterctl status {inventory}", soft_wrap=True)
