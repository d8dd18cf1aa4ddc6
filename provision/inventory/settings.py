"""The dict `cluster` of an inventory file -> Settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from provision.inventory import checks
from provision.inventory.files import absolute, mode_open_to_others
from provision.inventory.wording import fields, nearest, show, validate
from provision.model.cluster import Settings
from provision.model.errors import Finding


class ClusterData(Settings):
    """The dict `cluster`, under the names of the file."""

    source: Literal["static", "lab", "vagrant", "ec2"] = Field(
        default="static",
        alias="machines",
        description="what makes the machines; left out: they exist, and have addresses",
    )
    inventory: Path = Field(default=Path(), exclude=True)


def settings(raw: object, path: Path) -> tuple[Settings, bool, list[Finding]]:
    """Read the dict.

    Args:
        raw: what the file calls `cluster`.
        path: of the inventory file; relative paths start where it is.

    Returns:
        the settings, wrong values replaced by defaults; whether the machines' source is to
        choose the virtual address; the findings.
    """
    if not isinstance(raw, dict):
        what = "is missing" if raw is None else f"is {show(raw)}, not a dict"
        hint = 'at least: cluster = {"name": "demo"}'
        return Settings(name="unnamed", inventory=path), False, [Finding("cluster", what, hint)]
    data = {k: dict(v) if isinstance(v, dict) else v for k, v in raw.items()}
    findings = list(_hidden(data))
    api = data.get("api")
    vip_auto = isinstance(api, dict) and api.get("vip") == "auto"
    if isinstance(api, dict) and vip_auto:
        del api["vip"]
    given, problems, broken = validate(ClusterData, data, "cluster", {"name": "unnamed"})
    findings += problems
    if vip_auto and given.source not in {"lab", "vagrant"} and "machines" not in broken:
        hint = "give a free address of the machines' network, or leave it out"
        findings.append(Finding("cluster.api.vip", "'auto' is for the lab and Vagrant", hint))
    manifests = tuple(absolute(file, path.parent) for file in given.networks.manifests)
    texts, unread = _texts(manifests)
    bundle = given.artifacts.bundle
    ssh_key = given.backup.ssh_key and absolute(given.backup.ssh_key, path.parent)
    key_text, no_key = _key(ssh_key)
    given = given.model_copy(
        update={
            "inventory": path,
            "networks": given.networks.model_copy(
                update={"manifests": manifests, "manifest_texts": texts}
            ),
            "backup": given.backup.model_copy(
                update={"ssh_key": ssh_key, "ssh_key_text": key_text}
            ),
            "artifacts": given.artifacts.model_copy(
                update={"bundle": absolute(bundle, path.parent) if bundle else None}
            ),
        }
    )
    findings += [*unread, *no_key, *checks.settings(given, broken)]
    return given, vip_auto, findings


def _hidden(data: dict[str, object]) -> Iterator[Finding]:
    """Take out fields of the model that the file cannot set."""
    for key in ("inventory", "inventory_text", "source"):
        if key in data:
            del data[key]
            yield Finding(f"cluster.{key}", "unknown field", nearest(key, fields(ClusterData)))
    for section, key, meant in (
        ("networks", "manifest_texts", "manifests"),
        ("backup", "ssh_key_text", "ssh_key"),
    ):
        values = data.get(section)
        if isinstance(values, dict) and key in values:
            del values[key]
            hint = f"did you mean {meant!r}?"
            yield Finding(f"cluster.{section}.{key}", "unknown field", hint)


def _key(file: Path | None) -> tuple[str, list[Finding]]:
    if file is None:
        return "", []
    where = "cluster.backup.ssh_key"
    if mode := mode_open_to_others(file):
        what = f"{show(file)} is {mode}: others can read it"
        return "", [Finding(where, what, f"chmod 600 {file}")]
    try:
        return file.read_text("ascii"), []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a key in text"
        return "", [Finding(where, f"{show(file)} cannot be read: {reason}")]


def _texts(manifests: tuple[Path, ...]) -> tuple[tuple[str, ...], list[Finding]]:
    texts: list[str] = []
    findings: list[Finding] = []
    for file in manifests:
        try:
            texts.append(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
            what = f"{show(file)} cannot be read: {reason}"
            findings.append(Finding("cluster.networks.manifests", what))
    return tuple(texts), findings
