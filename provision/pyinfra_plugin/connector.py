"""`pyinfra @clusterctl/INVENTORY ...`: a cluster's machines for the pyinfra command.

pyinfra itself can read a static inventory. If the lab or a cloud makes the machines, only their
source knows the addresses. In both cases the connector pins the host keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import InventoryError as PyinfraInventoryError
from pyinfra.connectors.base import BaseConnector

from provision import inventory
from provision.apply import host_keys as host_keys  # noqa: PLC0414  replaces pyinfra's reader
from provision.inventory.draft import GROUPS
from provision.machines.locate import locate
from provision.machines.sources import source_of
from provision.model.cluster import Machine
from provision.model.commands import clusterctl
from provision.model.errors import ClusterctlError, MachinesError

_SSH = (
    "hostname",
    "port",
    "user",
    "key",
    "key_password",
    "password",
    "config_file",
)


class ClusterctlConnector(BaseConnector):
    """Names machines; pyinfra's SSH connector does the rest."""

    @staticmethod
    def make_names_data(name: str | None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """Give each machine's name, data and groups (`masters`, `workers`, `etcd`).

        Raises:
            PyinfraInventoryError: the inventory cannot be used. The class is pyinfra's own,
                because its command shows the message.
        """
        if not name:
            raise PyinfraInventoryError("say which inventory: @clusterctl/inventories/ha.py")
        try:
            draft = inventory.read(Path(name))
            source = source_of(draft)
            if {host.name for host in draft.hosts} <= set(source.missing(draft)):
                raise MachinesError(
                    f"the machines of {name} do not exist yet",
                    hint=f"{clusterctl('machines', 'up', name)} makes them",
                )
            cluster, _, hosts = locate(source, draft)
        except ClusterctlError as error:
            raise PyinfraInventoryError(
                f"{error}\n{error.hint}" if error.hint else str(error)
            ) from None
        for machine in cluster.machines:
            groups = [group for group, role in GROUPS.items() if role in machine.roles]
            data = _data(machine, hosts) | {"clusterctl_inventory": str(cluster.inventory)}
            yield machine.name, data, groups


def _data(machine: Machine, hosts: Path) -> dict[str, Any]:
    ssh = machine.ssh.model_dump(mode="json", exclude_none=True)
    data: dict[str, Any] = {f"ssh_{key}": ssh[key] for key in _SSH if key in ssh}
    data |= {
        "ssh_known_hosts_file": str(hosts),
        "ssh_strict_host_key_checking": "yes",
        "address": str(machine.address),
        "labels": dict(machine.labels),
        "taints": [str(taint) for taint in machine.taints],
        "_sudo": machine.ssh.sudo,
    }
    if machine.ssh.sudo_password:
        data["_sudo_password"] = machine.ssh.sudo_password
    return data
