"""What one probe of a machine finds, as values. No I/O; `provision.observe` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from provision.model.facts import Facts
from provision.model.holder import Holder
from provision.model.packet_filter import Chain

K = TypeVar("K")
V = TypeVar("V")


def _empty() -> Mapping[str, V]:
    return MappingProxyType({})


@dataclass(frozen=True)
class ObservedFile:
    """A path that a cluster manages, as it is now.

    Attributes:
        kind: `file`, `directory`, `link`, `other`.
        sha256: of the content; empty for what is not a regular file.
    """

    path: str
    kind: str
    mode: int
    owner: str
    group: str
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class PodNetwork:
    """The pod network `routed` of a node, as it works now.

    Attributes:
        cidr, mtu: for new pods, from the CNI configuration.
        bridge: address of the bridge, `10.244.3.1/24`; empty: no pod has run yet.
        routes: destinations that BIRD has learned from the other nodes.
        neighbours: address of another node -> its state in OSPF, as BIRD names it.
        unmapped: `namespace/name` of the pods with a hostPort that has no rules in nftables.
    """

    cidr: str
    mtu: str
    bridge: str
    routes: frozenset[str]
    neighbours: Mapping[str, str] = field(default_factory=_empty)
    unmapped: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObservedBinary:
    """An installed artifact.

    Attributes:
        pin: the catalogue's SHA-256 that it was installed from.
        intact: whether the file is still what was installed then (size, inode, mtime and
            ctime as recorded, or, in a deep check, the hash).
    """

    path: str
    pin: str
    version: str
    intact: bool


@dataclass(frozen=True)
class ObservedUnit:
    """A systemd unit, in systemd's own words (`systemctl show`).

    Attributes:
        enabled: systemd's UnitFileState (`enabled`, `disabled`, `static`, empty if unknown).
        digest: hash of what the unit read when clusterctl last (re)started it, by the record; see
            `plan`.
        started: ActiveEnterTimestampMonotonic, microseconds.
        lacks: the nftables table that it created and another program deleted.
    """

    name: str
    load: str
    active: str
    sub: str
    enabled: str
    needs_daemon_reload: bool = False
    restarts: int = 0
    started: int = 0
    digest: str = ""
    lacks: str = ""

    @property
    def running(self) -> bool:
        return self.active == "active" and not self.lacks


@dataclass(frozen=True)
class Port:
    """A listening socket and the process that holds it (empty when not known)."""

    protocol: str
    address: str
    port: int
    process: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Foreign:
    """A sign of an installation that clusterctl did not make.

    Attributes:
        tool: what made it, `k3s`.
        where: what was found, `/etc/rancher/k3s` or `docker.service is running`.
    """

    tool: str
    where: str


@dataclass(frozen=True)
class Place:
    """A directory that the cluster will use, or the nearest one above it that exists.

    Attributes:
        path: the directory that the cluster will use.
        there: the existing directory.
        mount: mount point of its file system.
        free: MiB.
        inodes: free inodes; None: the file system has no limit.
        unwritable: why clusterctl cannot make a file there; empty: it can.
        runs: whether a program can run from there.
    """

    path: str
    there: str
    mount: str = "/"
    free: int = 0
    inodes: int | None = None
    unwritable: str = ""
    runs: bool = True


@dataclass(frozen=True)
class HostReport:
    """What preflight judges.

    Attributes:
        memory, disk_free, var_free: MiB.
        clock_offset: the machine's clock minus the operator's, seconds.
        swap: names of active swap devices.
        reaches: address -> whether this machine can open a TCP connection to its SSH port;
            asked only for the machines' own addresses.
        downloads: registry or server of files -> whether it, or one of its mirrors, answers this
            machine.
        vip_answers: whether a machine answers at the API's virtual address; only a machine that
            does not hold it tries.
        foreign: installations that clusterctl did not make.
        routes: networks in its routing table, without those of pods.
        systemd: version, 0 when PID 1 is something else.
        missing: kernel features that the cluster needs and the machine lacks (`overlay`,
            `nf_tables`, `nft_fib_ipv4`).
        outdated: whether an upgrade has removed the modules of the kernel that still runs.
        firewalls: other active firewalls (`firewalld`, `ufw`).
        forbidden: what SELinux does not let programs do, by its booleans (`haproxy_connect_any`).
        rules: chains of the machine's own packet filter; of a machine in a cluster: iptables' only.
        resolver: address of a DNS server that only the machine itself reaches, if no file names
            the real servers.
        places: the directories that the cluster will use; empty: not asked.
    """

    hostname: str
    machine_id: str
    os_id: str
    os_version: str
    os_name: str
    kernel: str
    systemd: int
    cpus: int
    memory: int
    disk_free: int
    var_free: int
    clock_offset: float
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    swap: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    reaches: Mapping[str, bool] = field(default_factory=_empty)
    downloads: Mapping[str, bool] = field(default_factory=_empty)
    vip_answers: bool = False
    foreign: tuple[Foreign, ...] = ()
    missing: tuple[str, ...] = ()
    outdated: bool = False
    firewalls: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    rules: tuple[Chain, ...] = ()
    resolver: str = ""
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class EtcdMember:
    """A member by the cluster's own list. `id` is hexadecimal, as etcdctl prints it."""

    id: str
    name: str
    peer_urls: tuple[str, ...]
    learner: bool = False


@dataclass(frozen=True)
class EtcdView:
    """What the machine's own member says.

    Attributes:
        healthy: it answered a linearizable read: there is a quorum.
        leader: id of the leader, empty when there is none.
        db_size: bytes.
        revision: of the key space.
    """

    healthy: bool
    id: str = ""
    leader: str = ""
    version: str = ""
    db_size: int = 0
    revision: int = 0
    members: tuple[EtcdMember, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class NodeView:
    """A Node object, in the words of the API."""

    name: str
    ready: bool
    address: str = ""
    kubelet: str = ""
    pod_cidr: str = ""
    conditions: Mapping[str, str] = field(default_factory=_empty)
    labels: Mapping[str, str] = field(default_factory=_empty)
    annotations: Mapping[str, str] = field(default_factory=_empty)
    taints: tuple[str, ...] = ()
    unschedulable: bool = False


@dataclass(frozen=True)
class PodView:
    """A pod that is not ready.

    Attributes:
        why: `ImagePullBackOff: Back-off pulling image ...`, `Unschedulable: 0/2 nodes are ...`.
    """

    namespace: str
    name: str
    labels: Mapping[str, str]
    why: str


@dataclass(frozen=True)
class ApiView:
    """What the machine's own apiserver says (masters only).

    Attributes:
        ready: its /readyz answered ok.
        nodes: all Nodes.
        applied: name of a manifest -> hash that was applied last.
        objects: the objects of clusterctl's own manifests that exist, whole, as the API has them;
            None: they could not be read.
        given: the objects of the operator's manifests, with kind and metadata only.
        unread: why objects could not be read.
        waiting: pods that are not ready, in the namespaces of add-ons that lack pods.
        authority: PEM of the certificates of the cluster's Kubernetes authority, on that machine.
    """

    ready: bool
    version: str = ""
    nodes: tuple[NodeView, ...] = ()
    applied: Mapping[str, str] = field(default_factory=_empty)
    objects: tuple[Mapping[str, Any], ...] | None = None
    given: tuple[Mapping[str, Any], ...] | None = None
    unread: str = ""
    waiting: tuple[PodView, ...] = ()
    authority: str = ""
    error: str = ""


@dataclass(frozen=True)
class Observed:
    """One machine, now.

    Attributes:
        error: why it could not be observed; everything else is empty then.
        hint: what to do about that.
        off: it does not answer at all: it is off, frozen, or cut off.
        cluster: name of the cluster that the machine belongs to, by its record.
        fingerprint: SHA-256 of that cluster's first Kubernetes authority, by its record.
        trust: generation and digest of the trust that a master has, by its record.
        record: component -> the lines of its record, as fields (`provision.model.paths`).
        packages: the installed ones of the packages that the probe asks about.
        certificates: path -> PEM, of every leaf and authority of the cluster.
        etcd_data: whether an etcd member directory exists.
        etcd_formed: whether that member was once part of a healthy cluster, by its marker.
        etcd_joining: whether the step that starts it for the first time has left its marker.
        restoring: the content of the marker of an unfinished restore; empty: there is none.
        pods: its pod network; None: the network is another plug-in's, or not configured yet.
        for_life: settings that cannot change while the cluster exists, as its programs have them:
            `cluster-cidr`, `node-cidr-mask-size`, `service-cluster-ip-range`,
            `service-account-issuer`, `domain` -> value.
        unfinished: who began a command that changed the cluster and did not finish; empty: none.
        registered: whether the kubelet has a client certificate.
        images: pins of the image sets in the machine's registry.
        user_images: the operator's own images in it: reference -> digest.
        holder: the operator who changes the cluster at this moment.
    """

    machine: str
    error: str = ""
    hint: str = ""
    off: bool = False
    facts: Facts | None = None
    host: HostReport | None = None
    cluster: str = ""
    fingerprint: str = ""
    record: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=_empty)
    trust: tuple[int, str] | None = None
    files: Mapping[str, ObservedFile] = field(default_factory=_empty)
    binaries: Mapping[str, ObservedBinary] = field(default_factory=_empty)
    units: Mapping[str, ObservedUnit] = field(default_factory=_empty)
    certificates: Mapping[str, str] = field(default_factory=_empty)
    packages: frozenset[str] = frozenset()
    etcd_data: bool = False
    etcd_formed: bool = False
    etcd_joining: bool = False
    restoring: str = ""
    pods: PodNetwork | None = None
    for_life: Mapping[str, str] = field(default_factory=_empty)
    unfinished: str = ""
    registered: bool = False
    images: frozenset[str] = frozenset()
    user_images: Mapping[str, str] = field(default_factory=_empty)
    holder: Holder | None = None
    etcd: EtcdView | None = None
    api: ApiView | None = None

    @property
    def reachable(self) -> bool:
        return self.facts is not None

    def runs(self, unit: str) -> bool:
        """Whether a unit (`etcd.service`) is active."""
        there = self.units.get(unit)
        return there is not None and there.running


def unfinished(observed: Mapping[str, Observed]) -> str:
    """Who began the command that changed the cluster and did not finish; empty: there is none.

    It may run at this moment: then a machine has its lock (`Observed.holder`).
    """
    return max((view.unfinished for view in observed.values()), default="")


def api_view(observed: Mapping[str, Observed]) -> ApiView | None:
    """What the first apiserver that is ready says; None: no apiserver is ready."""
    return next((o.api for o in observed.values() if o.api is not None and o.api.ready), None)
