"""Versions, as a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from provision.cli.console import out


def show_versions(found: dict[str, Any]) -> None:
    """Print the client, then a column for each version of Kubernetes that it can install."""
    out.print(f"clusterctl {found['clusterctl']}")
    out.print(f"Python {found['python']} on {found['platform']}, {found['machine']}")
    out.print()
    default, sets = found["kubernetes"]["default"], found["components"]
    table = Table(box=None, pad_edge=False)
    table.add_column("KUBERNETES")
    for version in sets:
        table.add_column(f"{version} (default)" if version == default else version)
    for component in dict.fromkeys(name for parts in sets.values() for name in parts):
        table.add_row(component, *(parts.get(component, "") for parts in sets.values()))
    for image, tag in found["images"].items():
        table.add_row(image, *(tag for _ in sets))
    out.print(table)
