"""`clusterctl unlock`: take the lock away from an operator who is dead."""

from __future__ import annotations

import sys

import typer

from provision.cli.console import err, out
from provision.cli.options import Inventory, Yes
from provision.cli.progress import progress
from provision.model.errors import RefusedError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: clusterctl unlock inventories/ha.py")(unlock)


def unlock(inventory: Inventory, yes: Yes = False) -> None:
    """Show who works on the cluster, and take the lock away.

    A run that is dead loses its lock by itself: at once, or after a minute of silence.
    A run that is alive is stopped by this.
    """
    from provision.apply.lock import holders
    from provision.apply.lock import unlock as take_away
    from provision.apply.session import open_session

    with open_session(inventory, progress()) as session:
        name = session.cluster.name
        found = holders(session)
        if not found:
            out.print(f"{name} is not locked.")
            return
        for machine, holder in found.items():
            err.print(f"{machine}: {holder}", soft_wrap=True)
        if not yes:
            if not sys.stdin.isatty():
                message = f"{name} would be unlocked, and there is nobody to ask"
                raise RefusedError(message, hint="say --yes")
            typer.confirm("If that run is alive, it stops. Unlock?", abort=True, err=True)
        take_away(session, found)
        out.print(f"{name} is unlocked.")
