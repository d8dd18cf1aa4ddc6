"""The changes that `up` would make on one machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet
from provision.desired.catalog import desired
from provision.desired.digests import certificate_hash, reads, unit_digest
from provision.desired.model import Binary, ComponentState, Directory, HostFile, Unit
from provision.model import paths
from provision.model.cluster import Cluster, Machine
from provision.model.observed import NodeView, Observed, ObservedFile
from provision.pki import table
from provision.pki.leaf import Reason
from provision.pki.trust import Trust
from provision.plan.leaves import why_issued
from provision.plan.model import (
    ComponentPlan,
    FileChange,
    LeafChange,
    MachinePlan,
    Renewal,
    UnitChange,
)
from provision.plan.node_change import node_change
from provision.plan.quorum import Standing
from provision.plan.record import Wanted
from provision.plan.user_images import UserImage


def plan_machine(
    cluster: Cluster,
    machine: Machine,
    trust: Trust,
    observed: Observed,
    artifacts: ArtifactSet,
    now: datetime,
    *,
    etcd: Standing,
    nodes: Mapping[str, NodeView] | None,
    renewal: Renewal | None = None,
    user_images: tuple[UserImage, ...] = (),
) -> MachinePlan:
    """Plan everything that `up` would do on a machine that answers.

    Args:
        etcd: the machine's standing in the cluster's etcd.
        nodes: the cluster's Nodes; None when no apiserver is ready.
        renewal: certificates to be issued again as well.
        user_images: the operator's own images that its registry lacks.
    """
    facts = observed.facts
    assert facts is not None  # noqa: S101 - it answered
    states = desired(cluster, machine, trust, facts)
    wanted = Wanted.of(states, cluster, trust)
    leaves = {
        leaf.cert_path: reason
        for state in states.values()
        for leaf in state.leaves
        if (reason := why_issued(leaf, trust, observed, now, renewal))
    }
    pins = {
        binary.path: artifacts.get(binary.artifact, facts.arch).pin
        for state in states.values()
        for binary in state.binaries
    }
    missing = tuple(_missing(states, observed, pins))
    difference = _Difference.of(states, observed, wanted, leaves, pins, missing)

    # Under an external authority the kubelet's certificate is issued like all others.
    joins_by_token = machine.is_node and not cluster.certificates.external
    client = table.kubelet_client(cluster, machine)
    unfit = leaves.get(client.cert_path)
    if joins_by_token and observed.registered:
        unfit = why_issued(client, trust, observed, now, renewal, by_kubelet=True)
    registered = observed.registered and not (joins_by_token and unfit)
    node_is_gone = registered and nodes is not None and machine.name not in nodes
    components = _components(states, difference, unfit, node_is_gone=node_is_gone)

    images = artifacts.items.get((IMAGES, facts.arch))
    packages = {package for state in states.values() for package in state.packages}
    return MachinePlan(
        machine=machine.name,
        packages=tuple(sorted(packages - observed.packages)),
        binaries=missing,
        images=machine.is_master and images is not None and images.pin not in observed.images,
        user_images=user_images,
        components=components,
        remove=tuple(
            removal
            for removal in wanted.removals(observed.record)
            # The file stays until the objects that it made in the cluster are deleted: the deletion
            # needs the file.
            if nodes is not None or removal.component != "manifests"
        ),
        form_etcd=etcd is Standing.FOUNDER,
        join_etcd=etcd is Standing.JOINER,
        register=joins_by_token and not registered,
        node=node_change(cluster, machine, (nodes or {}).get(machine.name))
        if machine.is_node
        else None,
    )


def _components(
    states: Mapping[str, ComponentState],
    difference: _Difference,
    unfit: Reason | None,
    *,
    node_is_gone: bool,
) -> dict[str, ComponentPlan]:
    """Give the components that change, in order of installation.

    Args:
        unfit: the fault of the kubelet's client certificate; None: it is good.
        node_is_gone: the kubelet has registered, and its Node was deleted.
    """
    extra: dict[str, UnitChange] = {}
    if unfit:
        # kube-proxy uses the same certificate, and seldom checks for a newer one.
        reason = f"kubelet's client certificate: {unfit}"
        for name in ("kubelet", "kube-proxy"):
            extra[name] = UnitChange(f"{name}.service", "restart", reason)
    elif node_is_gone:
        # A kubelet registers only when it starts.
        extra["kubelet"] = UnitChange("kubelet.service", "restart", "its Node is gone")
    plans = {name: difference.component(state) for name, state in states.items()}
    for name, change in extra.items():
        if name in plans:
            plans[name] = _with_unit(plans[name], change)
    return {name: plan for name, plan in plans.items() if not plan.empty}


def _with_unit(plan: ComponentPlan, change: UnitChange) -> ComponentPlan:
    if any(unit.name == change.name for unit in plan.units):
        return plan
    return replace(plan, units=(*plan.units, change))


def _missing(
    states: Mapping[str, ComponentState], observed: Observed, pins: Mapping[str, str]
) -> Iterator[Binary]:
    """Give the binaries to be delivered."""
    for state in states.values():
        for binary in state.binaries:
            there = observed.binaries.get(binary.path)
            if there is None or there.pin != pins[binary.path] or not there.intact:
                yield binary


@dataclass(frozen=True)
class _Difference:
    """The desired and the observed state of a machine, ready to be compared.

    Attributes:
        leaves: path -> the reason for issuing the certificate.
        hashes: path -> hash of everything that units read, after this plan; certificates that are
            still to be issued have no hash.
        changed: path -> description of the change, for the operator. The paths are those of all
            components, because a unit may read files of another component.
    """

    observed: Observed
    wanted: Wanted
    leaves: Mapping[str, Reason]
    hashes: Mapping[str, str]
    changed: Mapping[str, str]

    @staticmethod
    def of(
        states: Mapping[str, ComponentState],
        observed: Observed,
        wanted: Wanted,
        leaves: Mapping[str, Reason],
        pins: Mapping[str, str],
        missing: tuple[Binary, ...],
    ) -> _Difference:
        files = [file for state in states.values() for file in state.files]
        hashes = {file.path: file.sha256 for file in files}
        hashes |= pins
        hashes |= {
            path: certificate_hash(pem)
            for path, pem in observed.certificates.items()
            if path not in leaves
        }
        changed = {f.path: f.path for f in files if not _same(f, observed.files.get(f.path))}
        changed |= {binary.path: binary.artifact for binary in missing}
        changed |= {path: f"certificate {path} ({reason})" for path, reason in leaves.items()}
        return _Difference(observed, wanted, leaves, hashes, changed)

    def component(self, state: ComponentState) -> ComponentPlan:
        files, record = self.observed.files, self.observed.record
        return ComponentPlan(
            state=state,
            directories=tuple(
                d for d in state.directories if not _same_directory(d, files.get(d.path))
            ),
            files=tuple(
                FileChange(file, files.get(file.path))
                for file in state.files
                if file.path in self.changed
            ),
            leaves=tuple(
                LeafChange(leaf, self.leaves[leaf.cert_path])
                for leaf in state.leaves
                if leaf.cert_path in self.leaves
            ),
            units=tuple(
                change for unit in state.units if (change := self._unit_change(unit, state))
            ),
            record=self.wanted.lacking(state.name, record),
            kept=self.wanted.kept(state.name, record),
            hashes=self.hashes,
        )

    def _unit_change(self, unit: Unit, state: ComponentState) -> UnitChange | None:
        there = self.observed.units.get(unit.name)
        enabled = there is not None and there.enabled == "enabled"
        if not unit.running:
            return None if enabled else UnitChange(unit.name, "enable", "is not enabled")
        if there is not None and there.active == "active" and there.lacks:
            # systemd has the unit as active already: a start would do nothing.
            return UnitChange(unit.name, "restart", f"nftables has no table {there.lacks}")
        if there is None or not there.running:
            return UnitChange(unit.name, "start", "is not running")
        causes = self._causes(unit, state)
        if not causes and there.digest != unit_digest(unit, state, self.hashes):
            causes = ["it runs with older files"]
        if causes:
            # systemd applies a changed unit file only when the unit starts.
            reload = unit.reload and f"{paths.UNITS}/{unit.name}" not in self.changed
            return UnitChange(unit.name, "reload" if reload else "restart", ", ".join(causes))
        return None if enabled else UnitChange(unit.name, "enable", "is not enabled")

    def _causes(self, unit: Unit, state: ComponentState) -> list[str]:
        """Give the changes for which a running unit must be reloaded or restarted."""
        causes = [self.changed[path] for path in reads(unit, state) if path in self.changed]
        # A unit rereads these certificates by itself: only an urgent change is a cause.
        urgent = (path for path in unit.rereads if path in self.leaves and self.leaves[path].urgent)
        return [*causes, *(self.changed[path] for path in urgent)]


def _same(file: HostFile, there: ObservedFile | None) -> bool:
    return there is not None and (
        there.kind,
        there.sha256,
        there.mode,
        there.owner,
        there.group,
    ) == ("file", file.sha256, file.mode, file.owner, file.group)


def _same_directory(directory: Directory, there: ObservedFile | None) -> bool:
    return there is not None and (there.kind, there.mode, there.owner, there.group) == (
        "directory",
        directory.mode,
        directory.owner,
        directory.group,
    )
