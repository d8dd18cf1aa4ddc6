"""What clusterctl does, as lists of phases.

A phase takes from the plan the machines that it changes, and says what it does there. A phase with
nothing to do is skipped. All machines of a phase work at once, except when a running control plane
is changed: then one master after the other, each healthy before the next.

`execute` carries out a list in strict order. `overlap` begins each phase as soon as the phases that
it depends on have ended (`Phase.after`, `after_here`, `each`); it is for a cluster that does not
run. Two phases that change the same machine depend on each other: the machine's own lock lets one
program at a time change it.
"""

from __future__ import annotations

from provision.apply.phases.addons import ADDONS
from provision.apply.phases.artifacts import ARTIFACTS
from provision.apply.phases.control_plane import CONTROL_PLANE, RENEW_CONTROL_PLANE
from provision.apply.phases.etcd import ETCD
from provision.apply.phases.firewall import FIREWALL, REMOVE_FIREWALL
from provision.apply.phases.group import GROUP
from provision.apply.phases.nodes import NODES
from provision.apply.phases.objects import OBJECTS
from provision.apply.phases.packages import PACKAGES
from provision.apply.phases.prune import PRUNE
from provision.apply.phases.ready import DNS, READY
from provision.apply.phases.run import Phase, Run, Work
from provision.apply.phases.schedule import execute, overlap
from provision.apply.phases.services import RENEW_SERVICES, SERVICES
from provision.apply.phases.verify import VERIFY

UP: tuple[Phase, ...] = (
    PACKAGES,
    # New machines fetch artifacts from each other: the firewall must allow that first.
    FIREWALL,
    REMOVE_FIREWALL,
    ARTIFACTS,
    SERVICES,
    ETCD,
    CONTROL_PLANE,
    OBJECTS,
    NODES,
    # By now the replacements of pruned components run, and the objects of those are deleted.
    PRUNE,
    READY,
    DNS,
    VERIFY,
    ADDONS,
    GROUP,
)

RENEW: tuple[Phase, ...] = (RENEW_CONTROL_PLANE, RENEW_SERVICES, OBJECTS, NODES, READY, DNS)

__all__ = [
    "ADDONS",
    "ARTIFACTS",
    "CONTROL_PLANE",
    "DNS",
    "ETCD",
    "FIREWALL",
    "GROUP",
    "NODES",
    "OBJECTS",
    "PACKAGES",
    "PRUNE",
    "READY",
    "REMOVE_FIREWALL",
    "RENEW",
    "RENEW_CONTROL_PLANE",
    "RENEW_SERVICES",
    "SERVICES",
    "UP",
    "VERIFY",
    "Phase",
    "Run",
    "Work",
    "execute",
    "overlap",
]
