"""The dict `cluster` of an inventory file -> Settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from provision.inventory import checks
from provision.inventory.files import absolute, mode_open_to_others
from provision.inventory.wording import show, validate
from provision.model.cluster import Files, Settings
from provision.model.commands import shell
from provision.model.errors import Finding
from provision.model.source import SOURCES, STATIC, SourceName

_READABLE = "give the path of a text file that you can read"


class ClusterData(Settings):
    """The dict `cluster`, under the names of the file."""

    source: SourceName = Field(
        default=STATIC,
        alias="machines",
        description="what makes the machines; static: they exist, and you give their addresses",
    )


@dataclass(frozen=True)
class Given:
    """What the dict says.

    Attributes:
        settings: wrong values are replaced by defaults.
        files: contents of the files that it names.
        vip_auto: whether the machines' source is to choose the virtual address.
    """

    settings: Settings
    files: Files = field(default_factory=Files)
    vip_auto: bool = False


def settings(raw: object, path: Path) -> tuple[Given, list[Finding]]:
    """Read the dict, and the files that it names.

    Args:
        raw: what the file calls `cluster`.
        path: of the inventory file; relative paths start at its directory.
    """
    if not isinstance(raw, dict):
        what = "is missing" if raw is None else f"is {show(raw)}, not a dict"
        hint = 'write at least cluster = {"name": "demo"}'
        return Given(Settings(name="unnamed")), [Finding("cluster", what, hint)]
    data = {k: dict(v) if isinstance(v, dict) else v for k, v in raw.items()}
    api = data.get("api")
    vip_auto = isinstance(api, dict) and api.get("vip") == "auto"
    if isinstance(api, dict) and vip_auto:
        del api["vip"]
    given, findings, broken = validate(ClusterData, data, "cluster", {"name": "unnamed"})
    if vip_auto and not given.source.chooses_vip and "machines" not in broken:
        able = " and ".join(source.machines for source in SOURCES.values() if source.chooses_vip)
        hint = "write a free address of the machines' network, or leave it out"
        findings.append(Finding("cluster.api.vip", f"'auto' is for {able}", hint))
    given = _absolute(given, path.parent)
    files = Files(
        manifests=_manifests(given.networks.manifests, findings),
        ssh_key=_ssh_key(given.backup.ssh_key, findings),
    )
    findings += checks.settings(given, broken)
    return Given(given, files, vip_auto), findings


def _absolute(given: ClusterData, folder: Path) -> ClusterData:
    """Make the paths of files absolute."""
    manifests = tuple(absolute(file, folder) for file in given.networks.manifests)
    ssh_key, bundle = given.backup.ssh_key, given.artifacts.bundle
    return given.model_copy(
        update={
            "networks": given.networks.model_copy(update={"manifests": manifests}),
            "backup": given.backup.model_copy(
                update={"ssh_key": ssh_key and absolute(ssh_key, folder)}
            ),
            "artifacts": given.artifacts.model_copy(
                update={"bundle": bundle and absolute(bundle, folder)}
            ),
        }
    )


def _ssh_key(file: Path | None, findings: list[Finding]) -> str:
    if file is None:
        return ""
    where = "cluster.backup.ssh_key"
    if mode := mode_open_to_others(file):
        what = f"{show(file)} has mode {mode}: other users can read it"
        findings.append(Finding(where, what, shell("chmod", 600, file)))
        return ""
    try:
        return file.read_text("ascii")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        findings.append(Finding(where, f"{show(file)} cannot be read: {reason}", _READABLE))
        return ""


def _manifests(files: tuple[Path, ...], findings: list[Finding]) -> tuple[str, ...]:
    texts: list[str] = []
    for file in files:
        try:
            texts.append(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
            what = f"{show(file)} cannot be read: {reason}"
            findings.append(Finding("cluster.networks.manifests", what, _READABLE))
    return tuple(texts)
