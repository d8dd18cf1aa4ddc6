"""Versions, as a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from provision.cli.console import out


def show_versions(found: dict[str, Any]) -> None:
    """Print the client, a row for each version of Kubernetes, and the images."""
    out.print(f"clusterctl {found['clusterctl']}")
    out.print(f"Python {found['python']} on {found['platform']}, {found['machine']}")
    out.print()
    default, sets = found["kubernetes"]["default"], found["components"]
    components = tuple(dict.fromkeys(name for parts in sets.values() for name in parts))
    table = Table(box=None, pad_edge=False)
    for heading in ("KUBERNETES", *components):
        table.add_column(heading)
    for version, parts in sets.items():
        name = f"{version} (default)" if version == default else version
        table.add_row(name, *(parts.get(component, "") for component in components))
    out.print(table)
    out.print()
    images = Table(box=None, pad_edge=False)
    for heading in ("IMAGE", "TAG"):
        images.add_column(heading)
    for image, tag in found["images"].items():
        images.add_row(image, tag)
    out.print(images)
