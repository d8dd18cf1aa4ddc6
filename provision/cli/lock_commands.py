"""`clusterctl unlock`: remove the lock of another operator."""

from __future__ import annotations

import typer

from provision.cli.confirm import confirm
from provision.cli.console import err, out
from provision.cli.options import Inventory, Yes
from provision.cli.progress import progress

app = typer.Typer()


@app.command(epilog="Example: clusterctl unlock inventories/ha.py")
def unlock(inventory: Inventory, yes: Yes = False) -> None:
    """Show which run has locked the cluster, and remove its lock.

    A run that has ended loses its lock without this command: at once, or within a minute. If the
    run is still active, removing its lock stops it.
    """
    from provision.apply import lock
    from provision.apply.session import open_session
    from provision.local import changes

    with open_session(inventory, progress()) as session:
        name = session.cluster.name
        found = lock.holders(session)
        if not found:
            out.print(f"{name} is not locked.")
            return
        for machine, holder in found.items():
            err.print(f"{machine}: {holder}", soft_wrap=True)
        question = "If that run is still active, it stops. Unlock?"
        confirm(f"unlock {name}", yes=yes, question=question)
        changes.begin(f"the lock of {name}")
        lock.unlock(session, found)
        out.print(f"{name} is unlocked.")
