"""The inventory of a lab with the machines and settings of another inventory, and its own name."""

from __future__ import annotations

from pathlib import Path
from pprint import pformat

import platformdirs

from provision.inventory import Draft
from provision.inventory.draft import GROUPS, HostEntry
from provision.local import private_file
from provision.local.cache import identity
from provision.model.cluster import Role, Settings
from provision.model.commands import clusterctl

SUFFIX = "-drill"
LONGEST = 40  # characters of a cluster's name
# `backup`: the lab must not copy its snapshots to the places of the cluster's snapshots.
NOT_COPIED = {"name", "source", "api", "backup"}


def write(draft: Draft) -> Path:
    """Write the lab's inventory, mode 0600: it may hold proxy passwords. The path never changes."""
    folder = platformdirs.user_state_path("clusterctl") / "drills"
    path = folder / f"{identity(draft.name, draft.inventory)}.py"
    private_file.write(path, text(draft).encode())
    return path


def text(draft: Draft) -> str:
    """The text of the lab's inventory."""
    settings = draft.model_dump(
        mode="json", include=Settings.model_fields.keys() - NOT_COPIED, exclude_defaults=True
    )
    if draft.certificates.external:
        # No external authority signs certificates for a lab.
        del settings["certificates"]
    cluster = {
        "name": draft.name[: LONGEST - len(SUFFIX)].rstrip("-") + SUFFIX,
        "machines": "lab",
        **settings,
    }
    groups = {
        group: [_entry(host) for host in draft.hosts if role in host.roles]
        for group, role in GROUPS.items()
    }
    if len(groups["masters"]) > 1:
        cluster["api"] = {"vip": "auto"}
    if _stacked(draft):
        del groups["etcd"]
    lines = [f"# Made by {clusterctl('drill', draft.inventory)}", f"cluster = {pformat(cluster)}"]
    lines += [f"{group} = {pformat(hosts)}" for group, hosts in groups.items() if hosts]
    return "\n".join(lines) + "\n"


def _stacked(draft: Draft) -> bool:
    return all((Role.MASTER in h.roles) == (Role.ETCD in h.roles) for h in draft.hosts)


def _entry(host: HostEntry) -> tuple[str, dict[str, object]]:
    data: dict[str, object] = {}
    if host.labels:
        data["labels"] = host.labels
    if host.taints:
        data["taints"] = [str(taint) for taint in host.taints]
    return host.name, data
