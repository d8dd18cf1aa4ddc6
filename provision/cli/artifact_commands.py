"""`clusterctl artifacts`: what gets onto the machines, and where it comes from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from provision.artifacts.catalogue import DATA
from provision.artifacts.model import ArtifactSet
from provision.cli.console import out
from provision.cli.options import Inventory, Output, OutputOption, print_json
from provision.cli.progress import progress

app = typer.Typer(
    help="List, fetch, build, bundle and pin binaries and images.", no_args_is_help=True
)

Arch = Annotated[list[str], typer.Option("--arch", help="amd64 or arm64; may be repeated.")]


@app.command("list", epilog="Example: clusterctl artifacts list inventories/ha.py")
def list_(
    inventory: Inventory,
    arch: Arch = ["amd64"],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every file that is pinned: version, SHA-256, where its publisher has it."""
    from provision.artifacts import pins
    from provision.inventory import read

    draft = read(inventory)
    wanted = [pin for pin in pins(draft.kubernetes) if pin.arch in arch]
    if output is Output.JSON:
        print_json([vars(pin) for pin in wanted])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "VERSION", "ARCH", "SHA256", "URL"):
        table.add_column(heading, overflow="fold")
    for pin in wanted:
        table.add_row(pin.name, pin.version, pin.arch, pin.sha256[:16], pin.url)
    out.print(table)


@app.command(epilog="Example: clusterctl artifacts fetch inventories/machines.py")
def fetch(inventory: Inventory, arch: Arch = ["amd64"]) -> None:
    """Make everything ready on this computer, by the inventory's own source."""
    from provision.artifacts import fetch as download

    _report(download(_prepare(inventory, arch), progress()))


@app.command(epilog="Example: clusterctl artifacts build inventories/ha.py")
def build(inventory: Inventory, arch: Arch = ["amd64"]) -> None:
    """Compile everything from pinned Go modules; needed once, then it is in the cache."""
    _report(_prepare(inventory, arch, source="build"))


@app.command(epilog="Example: clusterctl artifacts bundle inventories/ha.py cluster.tar.zst")
def bundle(
    inventory: Inventory,
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    arch: Arch = ["amd64"],
) -> None:
    """Put everything that a cluster needs into one file, for machines without a network.

    Beside it goes its bill of materials, in CycloneDX: FILE.cdx.json.
    """
    from provision.artifacts import write_bundle
    from provision.artifacts.sbom import cyclonedx

    ready = _prepare(inventory, arch)
    write_bundle(ready, path, progress())
    path.with_name(f"{path.name}.cdx.json").write_text(cyclonedx(ready, path.name))
    out.print(f"{path}: {path.stat().st_size / 1024**2:.0f} MiB, from the source {ready.source}.")


@app.command(epilog="Example: clusterctl artifacts lock --kubernetes 1.36.4")
def lock(
    kubernetes: Annotated[str, typer.Option(help="The version.", show_default=False)],
    catalogue: Annotated[
        Path, typer.Option(help="The file to add it to.", show_default="the one in use")
    ] = DATA,
    mirror: Annotated[
        str, typer.Option(help="Base URL of a mirror: files are at BASE/HOST/PATH.")
    ] = "",
    trusted_root: Annotated[
        Path | None,
        typer.Option(help="Sigstore's trusted_root.json, where its servers are not reached."),
    ] = None,
) -> None:
    """Add a version of Kubernetes to the catalogue, or checksums that it lacks.

    Every file is downloaded, hashed, and compared with its publisher's checksum; signatures of
    those who sign are verified. Nothing is written unless all of it holds. The other components'
    versions are those of the newest set; to build it, its Go modules are needed as well.
    """
    from provision.artifacts.catalogue import Catalogue
    from provision.artifacts.maintain import lock as locking
    from provision.artifacts.maintain.edit import with_sums, with_version
    from provision.artifacts.maintain.web import Web

    if not re.fullmatch(r"\d+\.\d+\.\d+", kubernetes):
        message = f"--kubernetes: {kubernetes!r} is not a version, such as 1.36.4"
        raise typer.BadParameter(message)
    text = with_version(catalogue.read_text(), kubernetes)
    web = Web(mirror)
    known = Catalogue.parse(text)
    if all(pin.sha256 for pin in known.pins(kubernetes).values()):
        out.print(f"{catalogue} has every checksum of {kubernetes}.", soft_wrap=True)
        return
    signatures = locking.verifier(web, trusted_root)
    locked = locking.lock(known, kubernetes, web, signatures, progress())
    catalogue.write_text(with_sums(text, kubernetes, locking.sums(locked)))
    table = Table(box=None, pad_edge=False)
    for heading in ("FILE", "SHA256", "SIGNED BY"):
        table.add_column(heading, overflow="fold")
    for each in locked:
        who = each.signed_by or "not signed: its publisher's checksum"
        table.add_row(each.url, each.sha256[:16], who)
    out.print(table)
    out.print(f"{catalogue} has {kubernetes} now.", soft_wrap=True)


def _prepare(inventory: Path, arch: list[str], source: str = "") -> ArtifactSet:
    from provision.artifacts import prepare
    from provision.commands.converge import artifacts_for
    from provision.inventory import read

    draft = read(inventory)
    settings = draft.artifacts
    if source:
        settings = settings.model_copy(update={"source": source})
    return prepare(settings, draft.kubernetes, artifacts_for(draft, arch), progress())


def _report(ready: ArtifactSet) -> None:
    for item in ready.items.values():
        where = item.local or item.url
        out.print(f"{item.name} {item.version} {item.arch} {where}", soft_wrap=True)
