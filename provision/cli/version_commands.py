"""`clusterctl version`: the versions of clusterctl and of the components that it installs."""

from __future__ import annotations

from typing import Any

import typer

from provision.cli.options import Output, OutputOption, print_json

app = typer.Typer()


def client_version() -> str:
    from importlib import metadata

    return metadata.version("clusterctl")


@app.command(epilog="Example: clusterctl version -o json")
def version(output: OutputOption = Output.TABLE) -> None:
    """Show the version of clusterctl and of what it installs."""
    found = _versions()
    if output is Output.JSON:
        print_json(found)
        return
    from provision.cli.views.version import show_versions

    show_versions(found)


def _versions() -> dict[str, Any]:
    """Versions of the client, of Kubernetes, and of each component and image.

    `components`: version of Kubernetes -> component -> version.
    """
    import platform

    from provision.artifacts.catalogue import catalogue
    from provision.artifacts.images import TABLE
    from provision.model.settings.components import KUBERNETES_DEFAULT

    known = catalogue()
    return {
        "clusterctl": client_version(),
        "kubernetes": {"default": KUBERNETES_DEFAULT, "versions": list(known.versions)},
        "components": {version: dict(parts) for version, parts in known.sets.items()},
        "images": {
            name: image.reference.rpartition(":")[2] for name, image in sorted(TABLE.items())
        },
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
    }
