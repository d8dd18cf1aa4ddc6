"""The model of a cluster: what the inventory says, validated and frozen. No I/O.

Everything that decides what a machine looks like is a pure function of these values, the
trust (`provision.pki`) and the machine's facts (`provision.model.facts.Facts`).
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from provision.model.base import Model
from provision.model.form import Form
from provision.model.settings.backup import Backup
from provision.model.settings.components import (
    KUBERNETES_DEFAULT,
    Addons,
    ArtifactsSource,
    ExtraArgs,
)
from provision.model.settings.ec2 import Ec2
from provision.model.settings.local import Lab, Vagrant
from provision.model.settings.network import Api, HttpProxy, Networks
from provision.model.settings.security import Certificates, Firewall, PodSecurity
from provision.model.source import STATIC, SourceName


class Role(StrEnum):
    """What a machine does. The inventory's groups are the plural: masters, workers, etcd."""

    MASTER = "master"
    WORKER = "worker"
    ETCD = "etcd"


class Ssh(Model):
    """How to reach a machine, under pyinfra's names for it (without the `ssh_` prefix)."""

    hostname: str = Field(description="name or address that SSH connects to")
    port: int = Field(default=22, ge=1, le=65535)
    user: str = "root"
    key: Path | None = Field(default=None, description="private key file")
    key_password: str | None = Field(default=None, repr=False)
    password: str | None = Field(default=None, repr=False)
    sudo: bool = Field(default=False, description="become root with sudo")
    sudo_password: str | None = Field(default=None, repr=False)
    config_file: Path | None = Field(default=None, description="ssh_config, for bastions")
    known_hosts_file: Path | None = None
    host_key: str | None = Field(
        default=None, description="pinned public host key, as in known_hosts: 'ssh-ed25519 AAAA...'"
    )


class Taint(Model):
    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"

    def __str__(self) -> str:
        return (
            f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"
        )


MachineName = Annotated[
    str,
    Form(
        r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?",
        "1 to 63 lower-case letters, digits, '-' and '.', and begin and end with a letter or digit",
    ),
]


class Machine(Model):
    """One machine. Its name is its hostname and its Node's name."""

    name: MachineName
    address: IPv4Address = Field(description="its address on the machines' own network")
    roles: frozenset[Role]
    ssh: Ssh
    labels: dict[str, str] = Field(default_factory=dict)
    taints: tuple[Taint, ...] = ()

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def is_master(self) -> bool:
        return Role.MASTER in self.roles

    @property
    def is_node(self) -> bool:
        """Whether it runs a kubelet: masters and workers do, separate etcd machines do not."""
        return bool(self.roles & {Role.MASTER, Role.WORKER})

    @property
    def has_etcd(self) -> bool:
        return Role.ETCD in self.roles


ClusterName = Annotated[
    str,
    Form(
        r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?",
        "1 to 40 lower-case letters, digits and '-', and no '-' at its ends",
    ),
]
SharedState = Annotated[
    str,
    Form(
        r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*|",
        "s3://BUCKET/PREFIX; the bucket has 3 to 63 lower-case letters, digits, '.' and '-', the "
        "prefix letters, digits, '.', '_', '-' and '/'",
    ),
]


class Settings(Model):
    """The settings of the whole cluster: what the inventory says beside its machines."""

    name: ClusterName = Field(description="name of the cluster", examples=["demo"])
    source: SourceName = Field(
        default=STATIC, description="what makes the machines; static: they exist"
    )
    kubernetes: str = Field(
        default=KUBERNETES_DEFAULT, description="version of Kubernetes, without a `v`"
    )
    api: Api = Field(default=Api(), description="how clients outside the nodes reach the API")
    networks: Networks = Field(default=Networks(), description="pods, Services, DNS")
    artifacts: ArtifactsSource = Field(
        default=ArtifactsSource(), description="where binaries and images come from"
    )
    addons: Addons = Field(default=Addons(), description="what runs inside the cluster")
    certificates: Certificates = Field(
        default=Certificates(), description="certificates of machines, not of people"
    )
    backup: Backup = Field(
        default=Backup(), description="snapshots that the masters take by themselves"
    )
    extra_args: ExtraArgs = Field(
        default_factory=dict,
        description="component → flag (without dashes) → value; kube-proxy's flags become fields of its "
        "configuration file",
        examples=[{"kubelet": {"v": "4"}}],
    )
    pod_security: PodSecurity = Field(
        default=PodSecurity(),
        description="the Pod Security level of namespaces that do not set their own",
    )
    firewall: Firewall = Field(
        default=Firewall(enabled=False),
        description="machines accept what the cluster needs, and SSH; they refuse the rest",
    )
    force_even_etcd: bool = Field(
        default=False, description="accept two etcd members, which cannot lose one"
    )
    masters_schedulable: bool = Field(default=False, description="masters run ordinary pods too")
    proxy: HttpProxy = Field(
        default=HttpProxy(),
        description="HTTP proxy for the machines' downloads; this computer's own downloads use "
        "the proxy that `https_proxy` in the environment names",
    )
    registry_mirrors: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="registry → URLs of mirrors, which containerd tries after the masters' registry",
        examples=[{"docker.io": ["https://mirror.example.org"]}],
    )
    lab: Lab = Field(
        default=Lab(),
        description='how `"machines": "lab"` makes machines, and Vagrant its containers',
    )
    vagrant: Vagrant = Field(
        default=Vagrant(), description='how `"machines": "vagrant"` makes machines'
    )
    ec2: Ec2 = Field(default=Ec2(), description='how `"machines": "ec2"` makes machines')
    state: SharedState = Field(
        default="",
        description="`s3://BUCKET/PREFIX` in an existing bucket, where operators share the "
        "encrypted keys and a lock; empty: they are in ~/.local/state of this computer",
        examples=["s3://example-clusters/production"],
    )


class Files(Model):
    """The contents of the inventory file and of the files that it names.

    Attributes:
        inventory: of the inventory file.
        manifests: of `networks.manifests`, in that order.
        ssh_key: of `backup.ssh_key`; empty without one.
    """

    inventory: str = Field(default="", repr=False)
    manifests: tuple[str, ...] = Field(default=(), repr=False)
    ssh_key: str = Field(default="", repr=False)


class Inventory(Settings):
    """The settings, and the files that say them.

    Attributes:
        inventory: absolute path of the inventory file.
        files: contents of that file, and of those that it names.
    """

    inventory: Path
    files: Files = Field(default=Files(), exclude=True)


class Cluster(Inventory):
    """A whole cluster, as desired."""

    machines: tuple[Machine, ...]

    def __hash__(self) -> int:
        return hash((self.name, self.machines))

    @property
    def masters(self) -> tuple[Machine, ...]:
        return tuple(m for m in self.machines if m.is_master)

    @property
    def workers(self) -> tuple[Machine, ...]:
        return tuple(m for m in self.machines if Role.WORKER in m.roles)

    @property
    def nodes(self) -> tuple[Machine, ...]:
        return tuple(m for m in self.machines if m.is_node)

    @property
    def etcd_members(self) -> tuple[Machine, ...]:
        return tuple(m for m in self.machines if m.has_etcd)

    @property
    def stacked(self) -> bool:
        """Whether every master has an etcd member of its own."""
        return all(m.has_etcd for m in self.masters)

    @property
    def endpoint(self) -> str:
        """`https://host:port` for clients outside the nodes."""
        host = self.api.name or (
            str(self.api.vip) if self.api.vip else str(self.masters[0].address)
        )
        return f"https://{host}:{self.api.port}"

    def machine(self, name: str) -> Machine:
        """The machine of that name.

        Raises:
            KeyError: no machine has that name.
        """
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise KeyError(name)
