"""Machines that exist already: clusterctl knows only their addresses."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import AddressValueError, IPv4Address

from provision.inventory import Draft
from provision.local import ssh_config
from provision.local.progress import Progress
from provision.machines import MachineStatus
from provision.model.cluster import Ssh
from provision.model.errors import Finding, InventoryError
from provision.model.located import Located

CONNECT_TIMEOUT = 5.0  # seconds


class Static:
    """Finds machines by the inventory. It never makes or removes machines."""

    def locate(self, draft: Draft) -> Mapping[str, Located]:
        """Give each machine's address: from the inventory, else by resolving SSH's host name.

        Raises:
            InventoryError: names every host name that cannot be resolved.
        """
        located: dict[str, Located] = {}
        findings: list[Finding] = []
        for host in draft.hosts:
            ssh = Ssh.model_validate(
                {
                    "hostname": str(host.address or host.name),
                    **host.ssh,
                    "sudo": host.sudo,
                    "sudo_password": host.sudo_password,
                }
            )
            ssh = ssh_config.settle(ssh, host.ssh)
            try:
                located[host.name] = Located(host.address or resolve(ssh.hostname), ssh)
            except OSError as error:
                findings.append(
                    Finding(
                        host.name,
                        f"the address of {ssh.hostname!r} cannot be found: {error.strerror}",
                        "give it: (name, {'address': '192.0.2.10'}), or correct ssh_hostname",
                    )
                )
        if findings:
            raise InventoryError("machines without an address", findings)
        return located

    def vip(self, draft: Draft) -> None:  # noqa: ARG002
        return None

    def missing(self, draft: Draft) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def create(
        self, draft: Draft, progress: Progress, names: Collection[str] | None = None
    ) -> None:
        """Do nothing: the machines exist."""

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> bool:  # noqa: ARG002
        return False

    def destroy(self, draft: Draft, progress: Progress) -> None:
        """Do nothing: clusterctl did not make the machines."""

    def status(self, draft: Draft) -> tuple[MachineStatus, ...]:
        located = self.locate(draft)
        with ThreadPoolExecutor(max_workers=16) as pool:
            states = pool.map(_state, (machine.ssh for machine in located.values()))
            return tuple(
                MachineStatus(name, state, str(m.address), f"{m.ssh.user}@{m.ssh.hostname}")
                for (name, m), state in zip(located.items(), states, strict=True)
            )


def resolve(hostname: str) -> IPv4Address:
    """Find the IPv4 address of a name, or of an address.

    Raises:
        OSError: the system's resolver does not know the name.
    """
    try:
        return IPv4Address(hostname)
    except AddressValueError:
        found = socket.getaddrinfo(hostname, None, socket.AF_INET, socket.SOCK_STREAM)
        return IPv4Address(found[0][4][0])


def _state(ssh: Ssh) -> str:
    """Give `unknown` if SSH's port does not answer: the machine may be off, or behind a bastion."""
    route = ssh_config.resolve(ssh)
    if route.hops or route.proxy_command:
        return "unknown"
    try:
        with socket.create_connection((route.hostname, route.port), CONNECT_TIMEOUT):
            return "running"
    except OSError:
        return "unknown"
