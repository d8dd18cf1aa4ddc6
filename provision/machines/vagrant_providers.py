"""The work for machines of Vagrant that Vagrant itself does not do, for each of its providers.

- Virtual machines: addresses. Vagrant makes the network, the disks and the keys.
- Containers: all the lab's work except making the containers. They are the lab's machines, made by
  Vagrant: the same image, flags, network, labels and files. So clusterctl can remove them
  completely, even if Vagrant's own files are lost.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal, Protocol

from provision.inventory import Draft
from provision.local.progress import Progress
from provision.machines import container_engine, image
from provision.machines.lab import COMMAND, USERS, Lab
from provision.machines.lab_names import LAB_LABEL, lab_id
from provision.machines.lab_network import VIP_HOST, assign, free_subnet, read_routes
from provision.machines.ssh_keys import public
from provision.model.commands import clusterctl
from provision.model.errors import MachinesError

Name = Literal["virtualbox", "libvirt", "docker"]

# The host-only networks that VirtualBox allows by default; its networks.conf can allow others.
HOST_ONLY = IPv4Network("192.168.56.0/21")
KEYS = "/mnt/clusterctl-keys"


class Provider(Protocol):
    @property
    def name(self) -> Name: ...

    def addresses(self, draft: Draft) -> Mapping[str, IPv4Address]:
        """Give each machine's address: the one it has, else the one it will get."""

    def vip(self, draft: Draft) -> IPv4Address: ...

    def prepare(
        self, draft: Draft, names: Collection[str], made: Collection[str], progress: Progress
    ) -> None:
        """Make the things that Vagrant needs to make or start machines.

        Args:
            names: machines that should run.
            made: machines that Vagrant already has in its files.
        """

    def spec(self, draft: Draft, name: str, address: IPv4Address) -> Mapping[str, object]:
        """Give a machine's data for the Vagrantfile."""

    def host_key(self, draft: Draft, name: str) -> str | None:
        """Give a machine's public host key if clusterctl made it; None: Vagrant must read it."""

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> None:
        """Remove leftovers of machines that Vagrant has destroyed."""

    def destroy(self, draft: Draft, progress: Progress) -> None:
        """Remove all leftovers after Vagrant has destroyed all its machines."""


def choose(wanted: str, made: Mapping[str, str]) -> Name:
    """Choose the provider of the existing machines, else the wanted one, else an installed one.

    Args:
        wanted: the inventory's provider; it may be `auto`.
        made: machine -> provider, of existing machines.
    """
    for candidates in (made.values(), (wanted,)):
        for name in _NAMES:
            if name in candidates:
                return name
    if shutil.which("VBoxManage"):
        return "virtualbox"
    return "libvirt" if shutil.which("virsh") and Path("/dev/kvm").exists() else "docker"


_NAMES: tuple[Name, ...] = ("virtualbox", "libvirt", "docker")


@dataclass(frozen=True)
class VirtualMachines:
    """VirtualBox or libvirt.

    Attributes:
        known: addresses of machines that exist.
    """

    name: Name
    known: Mapping[str, IPv4Address]

    def addresses(self, draft: Draft) -> Mapping[str, IPv4Address]:
        return assign(self._subnet(draft), [host.name for host in draft.hosts], self.known)

    def vip(self, draft: Draft) -> IPv4Address:
        return self._subnet(draft)[VIP_HOST]

    def prepare(
        self, draft: Draft, names: Collection[str], made: Collection[str], progress: Progress
    ) -> None: ...

    def spec(self, draft: Draft, name: str, address: IPv4Address) -> Mapping[str, object]:  # noqa: ARG002
        settings, identity = draft.vagrant, lab_id(draft)
        return {
            "name": f"{identity}-{name}",
            "box": settings.box,
            "memory": settings.memory,
            "cpus": settings.cpus,
            "network": identity,
            "netmask": str(self._subnet(draft).netmask),
        }

    def host_key(self, draft: Draft, name: str) -> None:  # noqa: ARG002
        return None

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> None: ...

    def destroy(self, draft: Draft, progress: Progress) -> None: ...

    def _subnet(self, draft: Draft) -> IPv4Network:
        if draft.vagrant.network is not None:
            return draft.vagrant.network
        for address in self.known.values():
            return IPv4Network((address, 24), strict=False)
        return free_subnet(lab_id(draft), read_routes(), HOST_ONLY)


@dataclass(frozen=True)
class Containers:
    """The provider `docker`, with the engine that works: podman or Docker."""

    lab: Lab
    name: Name = "docker"

    def addresses(self, draft: Draft) -> Mapping[str, IPv4Address]:
        return self.lab.addresses(draft)

    def vip(self, draft: Draft) -> IPv4Address:
        return self.lab.vip(draft)

    def prepare(
        self, draft: Draft, names: Collection[str], made: Collection[str], progress: Progress
    ) -> None:
        """Make image, network and keys, and the program `docker` that Vagrant will call.

        Raises:
            MachinesError: the lab has a container that is not in Vagrant's files.
        """
        strangers = [s.name for s in self.lab.status(draft) if s.state != "absent"]
        strangers = [name for name in strangers if name not in made]
        if strangers:
            raise MachinesError(
                f"{', '.join(strangers)}: there is a container that Vagrant does not know",
                hint=f"remove it first: {clusterctl('machines', 'down', draft.inventory)}",
            )
        self.lab.prepare(draft, names, progress)
        shim = self._path(draft) / "docker"
        shim.parent.mkdir(mode=0o700, exist_ok=True)
        shim.write_text(docker(container_engine.working().command, lab_id(draft)))
        shim.chmod(0o700)

    def spec(self, draft: Draft, name: str, address: IPv4Address) -> Mapping[str, object]:
        user, host_key = USERS[draft.lab.image], self.lab.host_key(draft, name)
        client = self.lab.client_key(draft)
        mounts = {
            host_key: f"{KEYS}/{host_key.name}",
            host_key.with_name(f"{host_key.name}.pub"): f"{KEYS}/{host_key.name}.pub",
            client.with_name(f"{client.name}.pub"): f"{KEYS}/authorized_keys",
        }
        return {
            "name": self.lab.container(draft, name),
            "image": image.tag(draft.lab.image),
            "flags": [
                *self.lab.create_flags(draft, name, address),
                *(f"--volume={source}:{target}:ro" for source, target in mounts.items()),
            ],
            "command": ["/bin/sh", "-ec", start(user)],
            "user": user,
            "key": str(client),
            "path": str(self._path(draft)),
        }

    def host_key(self, draft: Draft, name: str) -> str | None:
        return public(self.lab.host_key(draft, name))

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> None:
        self.lab.remove(draft, names, progress)

    def destroy(self, draft: Draft, progress: Progress) -> None:
        self.lab.destroy(draft, progress)

    def _path(self, draft: Draft) -> Path:
        return self.lab.directory(draft) / "bin"


def docker(engine: Sequence[str], identity: str) -> str:
    """Give the text of the program that Vagrant runs instead of Docker.

    Vagrant inspects every container in the output of `docker ps`. If another process removed one at
    that moment, the run would fail. So the program lists only this lab's containers.
    """
    program = shlex.join((shutil.which(engine[0]) or engine[0], *engine[1:]))
    return (
        "#!/bin/sh\n"
        f'[ "$1" != ps ] || {{ shift; set -- ps --filter=label={LAB_LABEL}={identity} "$@"; }}\n'
        f'exec {program} "$@"\n'
    )


def start(user: str) -> str:
    """Give a container's first command: it copies the keys to their places, then starts systemd.

    The keys are copied because sshd refuses keys that belong to the operator.
    """
    return (
        f"install -m 600 {KEYS}/ssh_host_ed25519_key /etc/ssh/; "
        f"install -m 644 {KEYS}/ssh_host_ed25519_key.pub /etc/ssh/; "
        f"install -m 644 {KEYS}/authorized_keys {image.AUTHORIZED_KEYS}/{user}; "
        f"exec {shlex.join(COMMAND)}"
    )
