"""The add-ons' manifests, as files on every master, so that each master can apply them."""

from __future__ import annotations

from provision.desired.addons import manifests
from provision.desired.model import (
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
)
from provision.model import paths
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.authority import Authority
from provision.pki.trust import Trust


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    wanted = manifests(cluster, trust.bundle(Authority.KUBERNETES))
    return ComponentState(
        name="manifests",
        directories=(Directory(paths.MANIFESTS, mode=0o700),),
        files=tuple(HostFile(manifest.path, manifest.content) for manifest in wanted),
    )


MANIFESTS = Component(
    "manifests",
    "what runs inside the cluster",
    ComponentPhase.CONTROL_PLANE,
    wanted=lambda _, machine: machine.is_master,
    state=_state,
)
