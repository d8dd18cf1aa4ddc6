"""The model of a cluster: what the inventory says, validated and frozen. No I/O.

Everything that decides what a machine looks like is a pure function of these values, the
trust (`provision.pki`) and the machine's facts (`provision.desired.model.Facts`).
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

KUBERNETES_DEFAULT = "1.36.3"


class Model(BaseModel):
    """Frozen, and strict about names: an unknown field is a finding, not a surprise."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Machine(Model):
    """One machine. Its name is its hostname and its Node's name."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")
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


class Api(Model):
    """Where people and programs outside the nodes find the API.

    Nodes do not use it: each has a proxy on its own loopback.
    """

    name: str | None = Field(default=None, description="DNS name of a load balancer of yours")
    vip: IPv4Address | None = Field(
        default=None,
        description="virtual address, moved between the masters by keepalived; "
        "`auto` in the lab and with Vagrant: one is chosen",
    )
    port: int = Field(default=6443, ge=1024, le=65535, description="of `name`; else 6443")


class Networks(Model):
    pods: IPv4Network = Field(
        default=IPv4Network("10.244.0.0/16"), description="the pods' addresses, all nodes together"
    )
    services: IPv4Network = Field(
        default=IPv4Network("10.96.0.0/16"), description="the Services' addresses"
    )
    node_prefix: int = Field(default=24, description="size of each node's share of `pods`")
    domain: str = Field(default="cluster.local", description="DNS suffix of Services")
    plugin: Literal["routed", "custom"] = Field(
        default="routed",
        description="routed: the nodes announce their pods to each other (BIRD, OSPF), without "
        "an overlay; custom: your own manifests",
    )
    manifests: tuple[Path, ...] = Field(
        default=(), description="files for the plug-in `custom`; relative to the inventory"
    )
    manifest_texts: tuple[str, ...] = Field(
        default=(), exclude=True, repr=False, description="what those files say; not to be set"
    )
    proxy_mode: Literal["nftables", "iptables", "none"] = Field(
        default="nftables", description="how kube-proxy works; none: there is no kube-proxy"
    )
    mtu: int = Field(default=0, description="0: that of the machine's interface")

    @property
    def kubernetes_service(self) -> IPv4Address:
        """The Service `kubernetes`: the first address of the Service network."""
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        """CoreDNS' Service: the tenth address, as kubeadm has it."""
        return self.services[10]


class ArtifactsSource(Model):
    source: Literal["auto", "official", "mirror", "bundle", "build"] = Field(
        default="auto",
        description="official: machines download; build: compiled on your computer from pinned "
        "Go modules; auto: official; where that cannot be reached, or has no known checksum, build",
    )
    mirror: str | None = Field(default=None, description="base URL, for the source `mirror`")
    bundle: Path | None = Field(default=None, description="file, for the source `bundle`")


class Addons(Model):
    coredns: bool = Field(default=True, description="the cluster's DNS")
    metrics_server: bool = Field(default=True, description="for `kubectl top` and autoscaling")
    local_path: bool = Field(
        default=True, description="local-path-provisioner, default StorageClass"
    )


class Certificates(Model):
    leaf_days: float = Field(
        default=365,
        gt=0,
        le=3650,
        description="life of what is signed from now on, kubelets' own too; renewed when a third "
        "of it is left",
    )
    authority: Literal["cluster", "external"] = Field(
        default="cluster",
        description="who signs: authorities of the cluster's own, with their keys on the masters; "
        "external: yours, from requests, `clusterctl certs csr` and `certs import`",
    )

    @property
    def external(self) -> bool:
        """Whether no authority's key is ever here: what is signed comes from outside."""
        return self.authority == "external"


class Backup(Model):
    """Snapshots that the masters take by themselves."""

    enabled: bool = Field(default=True, description="every master takes snapshots of etcd")
    hours: int = Field(default=6, ge=1, le=168, description="between two snapshots of a master")
    keep: int = Field(default=12, ge=1, description="how many snapshots of a master are kept")
    days: int = Field(
        default=30, ge=1, description="older ones are removed too; the newest one never is"
    )
    recipients: tuple[str, ...] = Field(
        default=(),
        description="keys of age, `age1...`, that open snapshots beside the cluster's own",
    )
    to: str = Field(
        default="",
        description="where copies go: `ssh://user@host/directory`, or `s3://bucket/prefix`",
    )
    ssh_key: Path | None = Field(
        default=None, description="private key for `ssh://`; every master gets it"
    )
    ssh_key_text: str = Field(
        default="", exclude=True, repr=False, description="what that file says; not to be set"
    )
    ssh_host_key: str = Field(
        default="", description="that host's public key, `ssh-ed25519 AAAA...`"
    )
    s3_endpoint: str = Field(
        default="", description="URL of an S3 that is not Amazon's; else the region's own"
    )
    s3_region: str = Field(default="us-east-1", description="of the bucket")
    s3_access_key: str = Field(
        default="", repr=False, description="may put, get, list and delete below the prefix"
    )
    s3_secret_key: str = Field(
        default="",
        repr=False,
        description="its secret, as text: `os.environ[...]` keeps it out of the file",
    )


class HttpProxy(Model):
    http: str | None = Field(default=None, repr=False, description="URL, for http://")
    https: str | None = Field(default=None, repr=False, description="URL, for https://")
    no_proxy: tuple[str, ...] = Field(
        default=(), description="names, addresses and networks that are reached directly"
    )


class PodSecurity(Model):
    """What pods may be, in a namespace that does not say it itself by its labels."""

    enforce: Literal["privileged", "baseline", "restricted"] = Field(
        default="baseline", description="what is beyond it is refused"
    )
    warn: Literal["privileged", "baseline", "restricted"] = Field(
        default="restricted", description="what is beyond it is warned of, and in the audit log"
    )
    exempt: tuple[Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")], ...] = (
        Field(
            default=(), description="namespaces to which it does not apply, beside our add-ons' own"
        )
    )


Opened = Annotated[
    str,
    Field(
        pattern=r"^(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?"
        r"( from [0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?)?$"
    ),
]


class Firewall(Model):
    """Rules on every machine for what comes in; `True` alone turns them on."""

    enabled: bool = Field(default=True, description="whether there are such rules")
    ssh_from: tuple[IPv4Network, ...] = Field(
        default=(), description="who may use SSH; nothing said: anybody"
    )
    allow: tuple[Opened, ...] = Field(
        default=(), description="what else: `tcp/9100 from 10.0.0.0/8`, `udp/51820`"
    )

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, given: object) -> object:
        return {"enabled": given} if isinstance(given, bool) else given


ExtraArgs = dict[
    Literal[
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "etcd",
        "kubelet",
        "kube-proxy",
    ],
    dict[str, str],
]


class Lab(Model):
    """How the lab's machines are made (`machines: "lab"`)."""

    image: Literal["full", "bare"] = Field(
        default="full",
        description="bare: systemd, sshd and sudo only; packages are installed by the deploys",
    )


class Vagrant(Model):
    """How Vagrant makes machines (`machines: "vagrant"`)."""

    provider: Literal["auto", "virtualbox", "libvirt", "docker"] = Field(
        default="auto",
        description="docker: containers, made by podman too; auto: virtualbox or libvirt where "
        "it is installed, else docker",
    )
    box: str = Field(default="debian/bookworm64", description="what virtual machines are made from")
    memory: int = Field(
        default=2048, ge=1024, description="MiB of each virtual machine; containers have no limit"
    )
    cpus: int = Field(default=2, ge=1, description="of each virtual machine; likewise")
    network: IPv4Network | None = Field(
        default=None, description="the machines' own, a /24 or wider; left out: a free one is taken"
    )


class Ec2(Model):
    """How machines on EC2 are made, and what is around them (`machines: "ec2"`)."""

    region: str = Field(default="", description="such as `eu-central-1`; must be given")
    zones: tuple[str, ...] = Field(
        default=(),
        description="availability zones, such as `eu-central-1a`: machines are spread over them; "
        "must be given, 3 survive the loss of one",
    )
    owner: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.@+-]{0,127}$|^$",
        description="whose cluster it is, a team or an e-mail address, tagged on everything; "
        "another owner's cluster of the same name is refused; must be given",
    )
    network: IPv4Network = Field(
        default=IPv4Network("10.0.0.0/16"),
        description="of the VPC that is made; in a VPC that exists, a free part of its network: "
        "each zone gets a sixteenth",
    )
    vpc: str | None = Field(
        default=None, pattern=r"^vpc-[0-9a-f]+$", description="one that exists; else one is made"
    )
    image: str = Field(
        default="debian-12",
        description="`debian-12`, `ubuntu-24.04`, `amazon-linux-2023`; or an AMI's id, or "
        "`OWNER/NAME` with `*` in the name: then `ssh_user` must be given too",
    )
    master_type: str = Field(default="t3.medium", description="instance type of masters and etcd")
    worker_type: str = Field(default="t3.medium", description="instance type of workers")
    disk: int = Field(default=20, ge=8, le=16384, description="GiB, each machine's root volume")
    etcd_disk: int = Field(
        default=10, ge=1, le=16384, description="GiB, the volume of each etcd member's own"
    )
    group: int = Field(
        default=0, ge=0, le=1000, description="size of an Auto Scaling group of further workers"
    )
    spot: bool = Field(default=False, description="workers are spot instances")
    ssh: Literal["public", "private", "ssm"] = Field(
        default="public",
        description="public: to public addresses; private: to private ones, over a VPN or a "
        "bastion of yours (`ssh_config_file`); ssm: through the Session Manager, with no port open, "
        "and an image that has its agent: not `debian-12`",
    )
    ssh_from: tuple[IPv4Network, ...] = Field(
        default=(), description="networks that may reach SSH; must be given, except for `ssm`"
    )
    api_from: tuple[IPv4Network, ...] = Field(
        default=(), description="networks that may reach the API's load balancer"
    )
    key_pair: str | None = Field(
        default=None, description="an EC2 key pair that exists; else a key is made and imported"
    )
    bucket: str = Field(
        default="",
        description="name of the S3 bucket; else `clusterctl-NAME-ACCOUNT-REGION`",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="further tags on everything")
    endpoint: str = Field(
        default="",
        description="URL of AWS' APIs, for this computer and the machines, where it is not AWS' own",
    )

    @property
    def api_url(self) -> str:
        """Where EC2's own API is asked."""
        return self.endpoint or f"https://ec2.{self.region}.amazonaws.com/"


class Settings(Model):
    """What the inventory says of the cluster as a whole, machines aside."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$", description="the cluster's name"
    )
    source: Literal["static", "lab", "vagrant", "ec2"] = Field(
        default="static", description="what makes the machines; static: they exist"
    )
    kubernetes: str = Field(default=KUBERNETES_DEFAULT, description="version, without a `v`")
    api: Api = Field(default=Api(), description="how the API is reached from outside the nodes")
    networks: Networks = Field(default=Networks(), description="pods, Services, DNS")
    artifacts: ArtifactsSource = Field(
        default=ArtifactsSource(), description="where binaries and images come from"
    )
    addons: Addons = Field(default=Addons(), description="what runs inside the cluster")
    certificates: Certificates = Field(
        default=Certificates(), description="of machines, not of people"
    )
    backup: Backup = Field(default=Backup(), description="snapshots that the masters take")
    extra_args: ExtraArgs = Field(
        default_factory=dict, description="component -> flag (without dashes) -> value"
    )
    pod_security: PodSecurity = Field(
        default=PodSecurity(), description="what pods may be, where a namespace does not say it"
    )
    firewall: Firewall = Field(
        default=Firewall(enabled=False),
        description="let in what the cluster needs, and SSH; refuse the rest",
    )
    force_even_etcd: bool = Field(
        default=False, description="accept two etcd members, which cannot lose one"
    )
    masters_schedulable: bool = Field(default=False, description="masters run ordinary pods too")
    proxy: HttpProxy = Field(
        default=HttpProxy(), description="HTTP proxy for the machines' downloads"
    )
    registry_mirrors: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="upstream registry -> URLs tried after the masters' own"
    )
    lab: Lab = Field(
        default=Lab(), description='how `"machines": "lab"` makes them, and Vagrant\'s containers'
    )
    vagrant: Vagrant = Field(
        default=Vagrant(), description='how `"machines": "vagrant"` makes them'
    )
    ec2: Ec2 = Field(default=Ec2(), description='how `"machines": "ec2"` makes them')
    state: str = Field(
        default="",
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*$|^$",
        description="`s3://BUCKET/PREFIX`, a bucket that exists: operators share the keys, sealed, "
        "and a lock there; else they are in this computer's ~/.local/state",
    )
    inventory: Path = Field(description="absolute path of the inventory file")
    inventory_text: str = Field(
        default="", exclude=True, repr=False, description="what that file says; not to be set"
    )


class Cluster(Settings):
    """A whole cluster, as desired."""

    machines: tuple[Machine, ...]

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
            KeyError: there is none.
        """
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise KeyError(name)
