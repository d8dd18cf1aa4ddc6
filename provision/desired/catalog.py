"""All components, in the order in which they are installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from provision.desired.components import firewall
from provision.desired.components.backup import BACKUP
from provision.desired.components.certificates import CERTIFICATES
from provision.desired.components.cloud_controller import CLOUD_CONTROLLER
from provision.desired.components.containerd import CONTAINERD
from provision.desired.components.control_plane import APISERVER, CONTROLLER_MANAGER, SCHEDULER
from provision.desired.components.etcd import ETCD
from provision.desired.components.group import GROUP
from provision.desired.components.haproxy import HAPROXY
from provision.desired.components.host import HOST
from provision.desired.components.keepalived import KEEPALIVED
from provision.desired.components.manifests import MANIFESTS
from provision.desired.components.node import KUBE_PROXY, KUBELET
from provision.desired.components.pod_network import POD_NETWORK
from provision.desired.components.registry import REGISTRY
from provision.desired.components.vpc_routes import VPC_ROUTES
from provision.desired.model import Component, ComponentPhase, ComponentState, Space
from provision.model.cluster import Cluster, Machine
from provision.model.distribution import UNKNOWN
from provision.model.facts import Facts
from provision.pki.trust import Trust

_GUARDED: tuple[Component, ...] = (
    HOST,
    CONTAINERD,
    REGISTRY,
    HAPROXY,
    POD_NETWORK,
    CERTIFICATES,
    ETCD,
    APISERVER,
    CONTROLLER_MANAGER,
    SCHEDULER,
    KEEPALIVED,
    VPC_ROUTES,
    GROUP,
    CLOUD_CONTROLLER,
    MANIFESTS,
    BACKUP,
    KUBELET,
    KUBE_PROXY,
)
COMPONENTS: tuple[Component, ...] = (HOST, firewall.guarding(_GUARDED), *_GUARDED[1:])

# All units that a machine of any cluster may have, each after the units that it needs. The probe
# asks for all of them, even if the inventory does not want them now.
UNITS: tuple[str, ...] = tuple(unit for c in COMPONENTS for unit in c.units)

_ANY = Facts("amd64", UNKNOWN, "eth0", "192.0.2.0/24", 2, False, True, "/etc/resolv.conf")


def component(name: str) -> Component:
    """Give the component of that name.

    Raises:
        KeyError: there is no such component.
    """
    return {c.name: c for c in COMPONENTS}[name]


def in_phase(*phases: ComponentPhase) -> tuple[str, ...]:
    """Give names of the components of these phases, in order of installation."""
    return tuple(c.name for c in COMPONENTS if c.phase in phases)


def spaces(cluster: Cluster, machine: Machine) -> dict[str, Space]:
    """Give what the components of a machine need in each directory: path -> the sum."""
    found: dict[str, Space] = {}
    for each in COMPONENTS:
        for space in each.spaces if each.wanted(cluster, machine) else ():
            found[space.path] = found[space.path] + space if space.path in found else space
    return found


def desired(
    cluster: Cluster, machine: Machine, trust: Trust, facts: Facts
) -> dict[str, ComponentState]:
    """Give everything that belongs on a machine: component -> state, in order of installation."""
    return dict(_desired(cluster, machine, trust, facts))


# A command asks several times about the same machines.
@lru_cache(maxsize=128)
def _desired(
    cluster: Cluster, machine: Machine, trust: Trust, facts: Facts
) -> Mapping[str, ComponentState]:
    states = {
        c.name: c.state(cluster, machine, trust, facts)
        for c in COMPONENTS
        if c.wanted(cluster, machine)
    }
    days = cluster.certificates.leaf_days
    return {
        name: replace(state, leaves=tuple(replace(leaf, days=days) for leaf in state.leaves))
        for name, state in states.items()
    }


def artifacts_of(cluster: Cluster, trust: Trust) -> tuple[str, ...]:
    """Give names of all artifacts that machines of the cluster need, sorted."""
    # Artifacts depend only on the roles of a machine: one machine of each kind is enough.
    kinds = {machine.roles: machine for machine in cluster.machines}
    names = {
        binary.artifact
        for machine in kinds.values()
        for state in desired(cluster, machine, trust, _ANY).values()
        for binary in state.binaries
    }
    return tuple(sorted(names))
