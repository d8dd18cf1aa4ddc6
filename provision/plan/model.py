"""A plan, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from provision.desired.addons import Manifest
from provision.desired.model import Binary, ComponentState, Directory, HostFile
from provision.model.observed import ObservedFile
from provision.pki.leaf import Leaf, Reason, issued_at
from provision.plan.node_change import NodeChange
from provision.plan.record import Line, Removal
from provision.plan.user_images import UserImage


@dataclass(frozen=True)
class FileChange:
    """A file to be written. `was`: the present file; None: the path does not exist."""

    file: HostFile
    was: ObservedFile | None

    @property
    def reason(self) -> str:
        if self.was is None:
            return "new"
        if self.was.sha256 != self.file.sha256:
            return "content differs"
        return (
            f"is {self.was.mode:04o} {self.was.owner}:{self.was.group}, "
            f"not {self.file.mode:04o} {self.file.owner}:{self.file.group}"
        )


@dataclass(frozen=True)
class Renewal:
    """Good certificates that the operator wants to be issued again.

    Attributes:
        names: of leaves; empty: all.
        before: only certificates issued before this time. An interrupted run has issued the others
            again already.
    """

    names: frozenset[str]
    before: datetime

    def wants(self, leaf: Leaf, certificate_pem: str | None) -> bool:
        issued = issued_at(certificate_pem)
        return (not self.names or leaf.name in self.names) and (
            issued is None or issued < self.before
        )


@dataclass(frozen=True)
class LeafChange:
    """A certificate and key to be issued."""

    leaf: Leaf
    reason: Reason


@dataclass(frozen=True)
class UnitChange:
    """A change of a unit. `enable` does not start it; the other actions also enable it."""

    name: str
    action: Literal["start", "restart", "reload", "enable"]
    reason: str


@dataclass(frozen=True)
class ComponentPlan:
    """The changes of one component on one machine.

    Attributes:
        record: its record must be written again.
        kept: lines that stay in its record until the things that they name are removed.
        hashes: path -> hash of everything that the machine's units read, after this plan, except
            certificates still to be issued (`provision.desired.digests`).
    """

    state: ComponentState
    directories: tuple[Directory, ...] = ()
    files: tuple[FileChange, ...] = ()
    leaves: tuple[LeafChange, ...] = ()
    units: tuple[UnitChange, ...] = ()
    record: bool = False
    kept: tuple[Line, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def restarts(self) -> bool:
        return any(unit.action == "restart" for unit in self.units)

    @property
    def empty(self) -> bool:
        return not (self.directories or self.files or self.leaves or self.units or self.record)


@dataclass(frozen=True)
class MachinePlan:
    """The changes on one machine.

    Attributes:
        binaries: to be delivered.
        images: the set of images must be delivered to its registry.
        user_images: the operator's own images, which are copied from other masters' registries.
        components: only those that change, in order of installation.
        remove: things that are no longer wanted.
        form_etcd: its etcd member starts for the first time, in a new cluster.
        join_etcd: its etcd member joins the existing ones, or finishes a join that was interrupted.
        register: its kubelet joins with a one-time token.
        node: the changes on its Node.
    """

    machine: str
    packages: tuple[str, ...] = ()
    binaries: tuple[Binary, ...] = ()
    images: bool = False
    user_images: tuple[UserImage, ...] = ()
    components: Mapping[str, ComponentPlan] = field(default_factory=dict)
    remove: tuple[Removal, ...] = ()
    form_etcd: bool = False
    join_etcd: bool = False
    register: bool = False
    node: NodeChange | None = None

    @property
    def empty(self) -> bool:
        return not (
            self.packages
            or self.binaries
            or self.images
            or self.user_images
            or self.components
            or self.remove
            or self.form_etcd
            or self.join_etcd
            or self.register
            or self.node
        )


@dataclass(frozen=True)
class ManifestChange:
    """A manifest that `up` applies. `reason`: `new`, or `Service kube-dns is missing`."""

    manifest: Manifest
    reason: str

    @property
    def name(self) -> str:
        return self.manifest.name


@dataclass(frozen=True)
class Plan:
    """The changes in the whole cluster.

    Attributes:
        machines: name -> plan, of every reachable machine, also of machines without changes.
        absent: name -> why it is unreachable. Nothing is done on these machines.
        apply: manifests to be applied.
        delete: names of manifests that were applied and are no longer wanted.
        running: whether the cluster works already: then masters are changed one by one.
        join: SHA-256 of the new program for machines that join by themselves; empty: they have the
            right program, or there are no such machines.
    """

    machines: Mapping[str, MachinePlan]
    absent: Mapping[str, str] = field(default_factory=dict)
    apply: tuple[ManifestChange, ...] = ()
    delete: tuple[str, ...] = ()
    running: bool = False
    join: str = ""

    @property
    def empty(self) -> bool:
        return not (self.apply or self.delete or self.join) and all(
            m.empty for m in self.machines.values()
        )

    def touching(self, *components: str) -> tuple[str, ...]:
        """Give names of the machines on which one of these components changes."""
        return tuple(
            name
            for name, plan in self.machines.items()
            if any(component in plan.components for component in components)
        )
