"""`clusterctl artifacts`: the binaries and images that clusterctl installs, and their sources."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provision.cli.confirm import may_install
from provision.cli.console import out
from provision.cli.options import Inventory, Output, OutputOption, Yes, print_json
from provision.cli.progress import progress

if TYPE_CHECKING:
    from provision.artifacts.model import ArtifactSet

app = typer.Typer(
    help="List, download, build, bundle and pin binaries and images.", no_args_is_help=True
)

Arch = Annotated[
    list[str],
    typer.Option("--arch", help="The machines' architecture, amd64 or arm64. May be repeated."),
]


@app.command("list", epilog="Example: clusterctl artifacts list inventories/ha.py")
def list_(
    inventory: Inventory,
    arch: Arch = ["amd64"],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the version, SHA-256 and URL of each pinned file."""
    from rich.table import Table

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
def fetch(inventory: Inventory, arch: Arch = ["amd64"], yes: Yes = False) -> None:
    """Get all files to this computer, from the inventory's source."""
    from provision import artifacts

    _report(artifacts.fetch(_prepare(inventory, arch, yes=yes), progress()))


@app.command(epilog="Example: clusterctl artifacts build inventories/ha.py")
def build(inventory: Inventory, arch: Arch = ["amd64"], yes: Yes = False) -> None:
    """Compile all binaries from pinned Go modules.

    They stay in the cache of this computer.
    """
    _report(_prepare(inventory, arch, source="build", yes=yes))


@app.command(epilog="Example: clusterctl artifacts bundle inventories/ha.py cluster.tar.zst")
def bundle(
    inventory: Inventory,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    arch: Arch = ["amd64"],
    yes: Yes = False,
) -> None:
    """Write one file with all that a cluster needs.

    Use it for machines that cannot reach the internet. The command also writes a bill of materials in the CycloneDX format, FILE.cdx.json.
    """
    from provision.artifacts import write_bundle
    from provision.artifacts.sbom import cyclonedx

    ready = _prepare(inventory, arch, yes=yes)
    write_bundle(ready, path, progress())
    path.with_name(f"{path.name}.cdx.json").write_text(cyclonedx(ready, path.name))
    out.print(
        f"{path}: {path.stat().st_size / 1024**2:.0f} MiB, made by the source {ready.source}."
    )


@app.command(epilog="Example: clusterctl artifacts lock --kubernetes 1.37.2")
def lock(
    kubernetes: Annotated[str, typer.Option(help="The version of Kubernetes.", show_default=False)],
    catalogue: Annotated[
        Path | None,
        typer.Option(help="The catalogue to change. Default: the catalogue that clusterctl uses."),
    ] = None,
    mirror: Annotated[
        str, typer.Option(help="A mirror's base URL. Its files are at BASE/HOST/PATH.")
    ] = "",
    trusted_root: Annotated[
        Path | None,
        typer.Option(
            help="Sigstore's trusted_root.json, for a computer that cannot reach Sigstore."
        ),
    ] = None,
) -> None:
    """Add a version of Kubernetes to the catalogue.

    If the catalogue has the version, the command adds missing checksums.

    The command downloads each file and compares its SHA-256 with the publisher's checksum. If the
    publisher signs its files, the command verifies the signature. It changes the catalogue only if
    every check passes.

    The other components get the versions of the newest set. To build the new version, its Go
    modules are needed too.
    """
    from rich.table import Table

    from provision.artifacts.catalogue import DATA, Catalogue
    from provision.artifacts.maintain import lock as locking
    from provision.artifacts.maintain.edit import with_sums, with_version
    from provision.artifacts.maintain.web import Web

    if not re.fullmatch(r"\d+\.\d+\.\d+", kubernetes):
        message = f"--kubernetes: {kubernetes!r} is not a version, such as 1.37.2"
        raise typer.BadParameter(message)
    catalogue = catalogue or DATA
    text = with_version(catalogue.read_text(), kubernetes)
    web = Web(mirror)
    known = Catalogue.parse(text)
    if all(pin.sha256 for pin in known.pins(kubernetes).values()):
        out.print(f"{catalogue} already has all checksums of {kubernetes}.", soft_wrap=True)
        return
    signatures = locking.verifier(web, trusted_root)
    locked = locking.lock(known, kubernetes, web, signatures, progress())
    catalogue.write_text(with_sums(text, kubernetes, locking.sums(locked)))
    table = Table(box=None, pad_edge=False)
    for heading in ("FILE", "SHA256", "SIGNED BY"):
        table.add_column(heading, overflow="fold")
    for each in locked:
        who = each.signed_by or "not signed; the publisher's checksum matches"
        table.add_row(each.url, each.sha256[:16], who)
    out.print(table)
    out.print(f"Kubernetes {kubernetes} was added to {catalogue}.", soft_wrap=True)


def _prepare(inventory: Path, arch: list[str], source: str = "", *, yes: bool) -> ArtifactSet:
    from provision.artifacts import prepare
    from provision.commands.converge import artifacts_for
    from provision.inventory import read

    draft = read(inventory)
    settings = draft.artifacts
    if source:
        settings = settings.model_copy(update={"source": source})
    wanted = artifacts_for(draft, arch)
    agree = may_install(yes=yes)
    return prepare(settings, draft.kubernetes, wanted, progress(), agree=agree)


def _report(ready: ArtifactSet) -> None:
    for item in ready.items.values():
        where = item.local or item.url
        out.print(f"{item.name} {item.version} {item.arch} {where}", soft_wrap=True)
