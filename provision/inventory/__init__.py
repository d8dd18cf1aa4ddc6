"""Inventory file -> Draft -> Cluster. Errors name the field, the value and what is allowed.

An inventory is a pyinfra inventory file: lists `masters`, `workers` and optionally `etcd`, each
item a name or `(name, data)`, or a whole group as `(list, data)`; and a dict `cluster` with the
settings of the whole cluster. A Draft has everything that is in the file. The machines' source
(lab, Vagrant, EC2, static) adds their addresses, which makes a Cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from provision.inventory import checks
from provision.inventory.draft import GROUPS, Draft, HostEntry
from provision.inventory.execute import Executed, execute, host_names
from provision.inventory.hosts import hosts
from provision.inventory.settings import settings
from provision.model.cluster import Cluster, Inventory, Machine, Settings
from provision.model.errors import Finding, InventoryError

if TYPE_CHECKING:
    from provision.model.located import Located

__all__ = ["Draft", "HostEntry", "complete", "read"]


def read(path: Path) -> Draft:
    """Execute an inventory file and check everything in it.

    Raises:
        InventoryError: with everything that is wrong, warnings included.
    """
    path = path.absolute()
    executed = execute(path)
    given, findings = settings(executed.cluster, path)
    entries, problems = hosts(executed.groups, path.parent, given.settings.source)
    findings = [*executed.findings, *_misspelt(executed), *_group_data(path), *findings, *problems]
    findings += checks.hosts(entries, given.settings, executed.groups)
    known = {host.name: host.address for host in entries if host.address}
    findings += checks.addresses(known, given.settings.api.vip, given.settings.networks)
    _refuse(path, findings)
    return Draft.model_validate(
        {
            **_fields(given.settings, Settings),
            "inventory": path,
            "files": given.files.model_copy(update={"inventory": executed.text}),
            "hosts": entries,
            "vip_auto": given.vip_auto,
            "warnings": tuple(findings),
        }
    )


def complete(
    draft: Draft,
    located: Mapping[str, Located],
    vip: IPv4Address | None,
    name: str | None = None,
) -> Cluster:
    """Add the machines' addresses.

    Args:
        draft: from `read`.
        located: of every host, by name.
        vip: that the source chose; used only if the file has `"vip": "auto"`.
        name: of a load balancer that the source made; used only if the file has no name.

    Raises:
        InventoryError: addresses that do not fit together.
    """
    api = draft.api.model_copy(update={"vip": vip}) if draft.vip_auto else draft.api
    if name and not api.name:
        api = api.model_copy(update={"name": name})
    known = {host.name: located[host.name].address for host in draft.hosts}
    _refuse(draft.inventory, list(checks.addresses(known, api.vip, draft.networks)))
    machines = tuple(
        Machine(
            name=host.name,
            address=located[host.name].address,
            roles=host.roles,
            ssh=located[host.name].ssh,
            labels=host.labels,
            taints=host.taints,
        )
        for host in draft.hosts
    )
    return Cluster.model_validate({**_fields(draft, Inventory), "api": api, "machines": machines})


def _fields(given: Settings, model: type[Settings]) -> dict[str, object]:
    return {name: getattr(given, name) for name in model.model_fields}


def _refuse(path: Path, findings: list[Finding]) -> None:
    if any(finding.fatal for finding in findings):
        hint = f"correct {path}, then run the command again"
        raise InventoryError(f"{path} cannot be used", findings, hint=hint)


def _group_data(path: Path) -> Iterator[Finding]:
    """Find the files of group data that pyinfra reads and clusterctl does not read."""
    for name in ("all", *GROUPS):
        file = path.parent / "group_data" / f"{name}.py"
        if file.is_file():
            yield Finding(
                f"group_data/{name}.py",
                "clusterctl does not read this file; pyinfra does",
                "write its data into the inventory: a group may be (hosts, data). To share data, "
                "import them: from group_data.all import ...",
                fatal=False,
            )


def _misspelt(executed: Executed) -> Iterator[Finding]:
    """Find misspelt names of groups; other lists are the operator's own groups for pyinfra."""
    machines = {name for group in executed.groups.values() for name in host_names(group)}
    for name, names in executed.others.items():
        close = get_close_matches(name.lower(), GROUPS, n=1, cutoff=0.8)
        if close and names - machines:
            yield Finding(name, "unknown group", f"did you mean {close[0]!r}?")
    if executed.cluster is None:
        for name in get_close_matches("cluster", executed.dicts, n=1, cutoff=0.8):
            yield Finding(name, "unknown dict", "did you mean 'cluster'?")
