"""The vocabulary of desired state: what a component puts on a machine, as values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.leaf import Leaf
from provision.pki.trust import Trust


@dataclass(frozen=True)
class HostFile:
    """A file of ours. Content is bytes as they are on disk."""

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
        path: where it goes; mode 0755 root:root.
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
        also: what it reads beside those, of other components.
        rereads: certificates that it reads anew by itself, within a minute: it is restarted for
            them only when the old one will not do for so long, or when that was asked for.
        running: False for units that are started by others (a oneshot behind a path unit).
    """

    name: str
    reload: bool = False
    reads: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    rereads: tuple[str, ...] = ()
    running: bool = True


@dataclass(frozen=True)
class ComponentState:
    """All that one component wants on one machine.

    Attributes:
        packages: of the distribution.
        users: system users, each with a group of its name.
        sysctls, modules: put in by files of ours and set at once.
        health: shell program that exits 0 when the component is healthy; it is repeated.
        health_timeout: seconds until the lack of health is a failure.
        leftovers: paths outside `files` that appear while it runs and that teardown removes
            (`/var/lib/kubelet`); only ever directories of the component's own.
        cleanup: shell program, one line, run when the component is removed, after its units
            stopped (interfaces, nftables tables, mounts: only our own).
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


@dataclass(frozen=True)
class Component:
    """A component: on which machines it is, and what it wants there.

    Attributes:
        name: `kube-apiserver`.
        summary: one line for the plan and the docs.
        wanted: whether it belongs on a machine.
        state: (cluster, machine, trust, facts) -> ComponentState, pure.
    """

    name: str
    summary: str
    wanted: Callable[[Cluster, Machine], bool]
    state: Callable[[Cluster, Machine, Trust, Facts], ComponentState] = field(repr=False)


def reads(unit: Unit, state: ComponentState) -> tuple[str, ...]:
    """The paths that a unit of this component reads when it starts."""
    if unit.reads:
        return unit.reads
    own = [file.path for file in state.files]
    own += [binary.path for binary in state.binaries]
    own += [leaf.cert_path for leaf in state.leaves]
    return (*own, *unit.also)
