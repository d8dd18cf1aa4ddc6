"""What a cloud would make, and what it costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from provision.machines import Planned


def show_purchase(planned: tuple[Planned, ...], basis: str, console: Console) -> None:
    """Print all that would be made, and the sum of the known prices."""
    table = Table(box=None, pad_edge=False)
    for heading in ("TO BE MADE", "", "$/MONTH"):
        table.add_column(heading, justify="right" if heading == "$/MONTH" else "left")
    for thing in planned:
        cost = "" if thing.monthly is None else f"{thing.monthly:.2f}"
        table.add_row(thing.what, thing.detail, cost)
    table.add_row("sum, about", "", f"{_sum(planned):.0f}", style="bold")
    console.print(table)
    console.print(basis, style="dim")


def purchase_as_json(planned: tuple[Planned, ...]) -> dict[str, Any]:
    """The same for programs; `monthly` in US dollars."""
    return {"to_make": [asdict(thing) for thing in planned], "monthly": round(_sum(planned), 2)}


def _sum(planned: tuple[Planned, ...]) -> float:
    return sum(thing.monthly or 0.0 for thing in planned)
