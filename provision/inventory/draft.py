"""What an inventory file alone can say, as values."""

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
    """Data of one machine, or of a group: as it stands in the file, under pyinfra's names."""

    model_config = ConfigDict(serialize_by_alias=True)

    address: IPv4Address | None = Field(
        default=None,
        description="on the machines' own network, where it differs from `ssh_hostname`",
    )
    ssh_hostname: str | None = Field(
        default=None, description="name or address that SSH connects to; else the machine's name"
    )
    ssh_port: int = Field(default=22, ge=1, le=65535, strict=True, description="SSH's port")
    ssh_user: str = Field(default="root", description="root, or one who may use sudo")
    ssh_key: Path | None = Field(
        default=None,
        description="private key file; else the SSH agent and the keys in ~/.ssh are tried",
    )
    ssh_key_password: str | None = Field(
        default=None, repr=False, description="the key's passphrase"
    )
    ssh_password: str | None = Field(default=None, repr=False, description="a key is better")
    ssh_config_file: Path | None = Field(
        default=None, description="ssh_config, for bastions (ProxyJump); else ~/.ssh/config"
    )
    ssh_known_hosts_file: Path | None = Field(
        default=None, description="host keys; else ~/.ssh/known_hosts"
    )
    ssh_host_key: str | None = Field(
        default=None,
        description="the machine's public host key, `ssh-ed25519 AAAA...`: then no other is taken",
    )
    ssh_strict_host_key_checking: Literal["yes"] = Field(
        default="yes", description="host keys are always verified; for the pyinfra command"
    )
    sudo: bool = Field(default=False, alias="_sudo", description="become root with sudo")
    sudo_password: str | None = Field(
        default=None, alias="_sudo_password", repr=False, description="where sudo asks for one"
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="of the Node; a machine's are added to its group's"
    )
    taints: tuple[str, ...] = Field(
        default=(),
        description="of the Node, as kubectl writes them: `key=value:NoSchedule`; a machine's "
        "are added to its group's",
    )


class HostEntry(Model):
    """A machine as the file has it.

    Attributes:
        address: on the machines' own network; None when the file does not say it: the lab
            and the clouds choose one, a static machine's `ssh_hostname` is looked up.
        ssh: only what the file gives, under the names of `provision.model.cluster.Ssh`
            (`hostname`, `port`, `user`, `key` ...; paths absolute). May hold passwords.
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
