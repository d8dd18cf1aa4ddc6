"""Certificates, as a table and as data."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from provision.cli.console import out
from provision.commands.certs.listing import Certificate

_WIDTH = 200  # columns of the table in a file or a pipe


def certificates_as_json(
    certificates: Iterable[Certificate], now: datetime
) -> list[dict[str, Any]]:
    return [
        {
            "machine": c.machine,
            "path": c.path,
            "subject": c.subject,
            "kind": c.kind,
            "names": list(c.names),
            "signed_by": c.signed_by,
            "expires": c.expires.isoformat() if c.expires else None,
            "days_left": c.left(now).days,
        }
        for c in certificates
    ]


def show_certificates(certificates: Iterable[Certificate], now: datetime, warn: timedelta) -> None:
    """Print a row for each certificate; red if it expires within `warn`."""
    table = Table(box=None, pad_edge=False)
    for heading in ("MACHINE", "FILE", "LEFT", "SIGNED BY"):
        table.add_column(heading, no_wrap=True)
    table.add_column("USE, SUBJECT AND NAMES", overflow="fold")
    for c in certificates:
        left = c.left(now)
        table.add_row(
            c.machine,
            c.path,
            Text("unreadable" if c.expires is None else words(left), "red" if left < warn else ""),
            c.signed_by,
            f"{c.kind} {c.subject}" + (f": {', '.join(c.names)}" if c.names else ""),
        )
    (out if out.is_terminal else Console(highlight=False, width=_WIDTH)).print(table)


def words(left: timedelta) -> str:
    """The time in days; less than two days in hours or minutes."""
    if left <= timedelta(0):
        return "expired"
    if left >= timedelta(days=2):
        return f"{left.days} days"
    hours = left // timedelta(hours=1)
    return f"{hours} hours" if hours else f"{left // timedelta(minutes=1)} minutes"
