"""Desired state as values: the things that a component puts on a machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.leaf import Leaf
from provision.pki.trust import Trust


@dataclass(frozen=True)
class HostFile:
    """A file that clusterctl writes. Content is the bytes on disk."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o600
    owner: str = "root"
    group: str = "root"
    secret: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Directory:
    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class Binary:
    """An executable that comes from the catalogue.

    Attributes:
        artifact: the catalogue's name, `kubernetes/kubelet`.
        path: on the machine; mode 0755 root:root.
    """

    artifact: str
    path: str


@dataclass(frozen=True)
class Unit:
    """A systemd unit to be enabled and running.

    Attributes:
        name: `etcd.service`.
        reload: a change of files needs only `systemctl reload`.
        reads: paths whose change restarts it; empty: every file of the component.
        also: files of other components that it also reads.
        rereads: certificates that it reads again by itself within a minute. It is restarted for
            them only when the change is urgent (`provision.pki.leaf.Reason`).
        running: False for units that other units start (a oneshot behind a path unit).
    """

    name: str
    reload: bool = False
    reads: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    rereads: tuple[str, ...] = ()
    running: bool = True


@dataclass(frozen=True)
class ComponentState:
    """Everything that one component wants on one machine.

    Attributes:
        packages: of the distribution.
        users: system users, each with a group of its name.
        sysctls, modules: set at once; files of the component set them at boot.
        health: shell program that exits 0 when the component is healthy; it is repeated until then.
        health_timeout: seconds after which an unhealthy component is a failure.
        leftovers: paths outside `files` that appear while it runs and that teardown removes
            (`/var/lib/kubelet`); only directories that no other program uses.
        cleanup: shell program, one line, run when the component is removed, after its units
            stopped (it removes interfaces, nftables tables and mounts that the component made).
    """

    name: str
    packages: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    directories: tuple[Directory, ...] = ()
    files: tuple[HostFile, ...] = ()
    binaries: tuple[Binary, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    modules: tuple[str, ...] = ()
    units: tuple[Unit, ...] = ()
    health: str = ""
    health_timeout: int = 120
    leftovers: tuple[str, ...] = ()
    cleanup: str = ""


class ComponentPhase(Enum):
    """Which phase of `up` installs a component. Phases run in this order."""

    FIREWALL = auto()
    SERVICES = auto()
    ETCD = auto()
    CONTROL_PLANE = auto()  # also other components of masters that need the apiserver
    NODES = auto()


class Protocol(StrEnum):
    """Protocols, in the form that nftables matches; the last two have no ports."""

    TCP = "tcp"
    OSPF = "meta l4proto 89"
    VRRP = "meta l4proto 112"


class Listens(Enum):
    """The address on which a process listens."""

    EVERYWHERE = auto()
    MACHINE = auto()  # the machine's address on the machines' own network
    LOOPBACK = auto()
    NOWHERE = auto()  # no process: the kernel, or the process of another port, answers


class Who(Enum):
    """The clients that may connect to a port. The firewall's and EC2's rules are made from this."""

    MASTERS = auto()
    MEMBERS = auto()  # machines with an etcd member
    MACHINES = auto()
    OWN_PODS = auto()  # pods of the same node
    # Any address. On EC2: the machines, the VPC and `ec2.api_from`.
    API_CLIENTS = auto()
    # Any address. On EC2: the VPC; its load balancers check the machines' health.
    HEALTH_CHECKS = auto()
    # Any address. On EC2 the cloud controller opens the ports of each Service.
    SERVICE_CLIENTS = auto()


@dataclass(frozen=True)
class Allow:
    """The clients that may connect to a port; `why`: for the comment in the rules."""

    who: Who
    why: str = ""


@dataclass(frozen=True)
class Port:
    """A port, or a range of ports, that a component needs.

    Attributes:
        number: the port, or the first of a range; 0: the protocol has none.
        what: for the comment in the firewall's rules, and for findings of preflight.
        allow: clients that may connect. A port beyond loopback without a client has no purpose.
        listens: the address; preflight checks that no other process has it.
        last: the last port of a range.
        on: the machines that need it; None: all that have the component. The firewall's rules
            follow this, even on machines where the component itself is not wanted.

    Raises:
        ValueError: a port beyond loopback that no rule would open, or an open one on loopback.
    """

    number: int
    what: str
    allow: tuple[Allow, ...] = ()
    listens: Listens = Listens.EVERYWHERE
    protocol: Protocol = Protocol.TCP
    last: int = 0
    on: Callable[[Machine], bool] | None = None

    def __post_init__(self) -> None:
        if bool(self.allow) is (self.listens is Listens.LOOPBACK):
            name = f"port {self.number} ({self.what})"
            raise ValueError(
                f"{name} listens on loopback only: no other machine can connect, so `allow` is empty"
                if self.allow
                else f"{name} listens beyond loopback: `allow` must say who may connect"
            )


@dataclass(frozen=True)
class Space:
    """A directory that a component uses, and the free space that the component needs there.

    Attributes:
        path: absolute; the component makes the directory if it does not exist.
        least, enough: MiB. Less than `least` is an error, less than `enough` a warning.
        inodes: number of files and directories.
        runs: whether programs run from the directory.
    """

    path: str
    least: int
    enough: int = 0
    inodes: int = 100
    runs: bool = False

    def __add__(self, other: Space) -> Space:
        """Give the sum of both needs, with the path of this one."""
        return Space(
            self.path,
            self.least + other.least,
            max(self.least, self.enough) + max(other.least, other.enough),
            self.inodes + other.inodes,
            self.runs or other.runs,
        )


@dataclass(frozen=True)
class Component:
    """A component: the machines that have it, and the things that it wants on them.

    Attributes:
        name: `kube-apiserver`.
        summary: one line for the plan and the docs.
        phase: the phase of `up` that installs it.
        wanted: (cluster, machine) -> whether it belongs on the machine.
        state: (cluster, machine, trust, facts) -> ComponentState, pure.
        units: every unit that it has on a machine of any cluster, each after those that it needs.
        ports: every port on which its processes listen, and other traffic that must reach them.
        spaces: the directories that it writes to, and the directories of its programs.
    """

    name: str
    summary: str
    phase: ComponentPhase
    wanted: Callable[[Cluster, Machine], bool]
    state: Callable[[Cluster, Machine, Trust, Facts], ComponentState] = field(repr=False)
    units: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    spaces: tuple[Space, ...] = ()

    def opens(self, cluster: Cluster, machine: Machine, port: Port) -> bool:
        """Whether a machine needs one of the component's ports."""
        return port.on(machine) if port.on else self.wanted(cluster, machine)
