"""The contents of an inventory file, as values."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from provision.model.base import Model
from provision.model.cluster import Inventory, Role, Taint
from provision.model.errors import Finding

# The order is that of the machines in everything that is shown.
GROUPS = {"masters": Role.MASTER, "workers": Role.WORKER, "etcd": Role.ETCD}


class HostData(Model):
    """Data of one machine, or of a group: as it is in the file, under pyinfra's names."""

    model_config = ConfigDict(serialize_by_alias=True)

    address: IPv4Address | None = Field(
        default=None,
        description="address on the machines' own network, if it is not `ssh_hostname`",
        examples=["192.0.2.11"],
    )
    ssh_hostname: str | None = Field(
        default=None,
        description="name or address for SSH; without it, the machine's name",
        examples=["192.0.2.11"],
    )
    ssh_port: int = Field(default=22, ge=1, le=65535, strict=True, description="port of SSH")
    ssh_user: str = Field(default="root", description="root, or a user that may use sudo")
    ssh_key: Path | None = Field(
        default=None,
        description="private key file; without it, the SSH agent and the keys in ~/.ssh are tried",
        examples=["~/.ssh/id_ed25519"],
    )
    ssh_key_password: str | None = Field(
        default=None, repr=False, description="passphrase of the key"
    )
    ssh_password: str | None = Field(
        default=None, repr=False, description="password for SSH; a key is better"
    )
    ssh_config_file: Path | None = Field(
        default=None,
        description="ssh_config file, for bastions (ProxyJump); without it, ~/.ssh/config",
        examples=["ssh_config"],
    )
    ssh_known_hosts_file: Path | None = Field(
        default=None,
        description="file with host keys; without it, ~/.ssh/known_hosts",
        examples=["known_hosts"],
    )
    ssh_host_key: str | None = Field(
        default=None,
        description="the machine's public host key; clusterctl then accepts no other",
        examples=[
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kYg7Oq4Nn3b8m2uFZ1eYpF9w7yq2nq7m4T1m0zYbR"
        ],
    )
    ssh_strict_host_key_checking: Literal["yes"] = Field(
        default="yes",
        description="clusterctl always verifies host keys; the field is for the pyinfra command",
    )
    sudo: bool = Field(default=False, alias="_sudo", description="become root with sudo")
    sudo_password: str | None = Field(
        default=None, alias="_sudo_password", repr=False, description="password for sudo"
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="labels of the Node; a machine has its own and its group's",
        examples=[{"disk": "nvme"}],
    )
    taints: tuple[str, ...] = Field(
        default=(),
        description="taints of the Node, as kubectl writes them; a machine has its own and its "
        "group's",
        examples=[["dedicated=db:NoSchedule"]],
    )


class HostEntry(Model):
    """A machine, as it is in the file.

    Attributes:
        address: on the machines' own network; None if the file has none: the lab and the clouds
            choose one, a static machine's `ssh_hostname` is looked up.
        ssh: only what is in the file, under the names of `provision.model.cluster.Ssh`
            (`hostname`, `port`, `user`, `key` ...; paths absolute). It may have passwords.
    """

    name: str
    roles: frozenset[Role]
    address: IPv4Address | None = None
    ssh: dict[str, str | int | Path] = Field(default_factory=dict, repr=False)
    sudo: bool = False
    sudo_password: str | None = Field(default=None, repr=False)
    labels: dict[str, str] = Field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


class Draft(Inventory):
    """A cluster whose machines have not been located yet.

    Attributes:
        vip_auto: the file says `"api": {"vip": "auto"}`; the machines' source chooses one.
        warnings: findings that do not stop anything.
    """

    hosts: tuple[HostEntry, ...]
    vip_auto: bool = False
    warnings: tuple[Finding, ...] = ()
