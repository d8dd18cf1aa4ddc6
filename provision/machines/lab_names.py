"""Names and labels of everything that a lab makes in the container engine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from provision.inventory import Draft

VOLUMES = {
    "containerd": "/var/lib/containerd",
    "kubelet": "/var/lib/kubelet",
    "etcd": "/var/lib/etcd",
}
LAB_LABEL = "clusterctl.lab"
MACHINE_LABEL = "clusterctl.machine"
ADDRESS_LABEL = "clusterctl.address"
IMAGE_LABEL = "clusterctl.image"
RESERVED = "_reserved"  # no machine's name has an underscore
INOTIFY_LABEL = "clusterctl.inotify"  # on networks: the limit before the first lab was made


def lab_id(draft: Draft) -> str:
    """Give a lab's id: `NAME-HASH`, with a hash of the inventory's absolute path."""
    return f"{draft.name}-{hashlib.sha256(str(draft.inventory).encode()).hexdigest()[:8]}"


def volumes_of(identity: str, names: Iterable[str]) -> tuple[str, ...]:
    """Choose the volumes of one lab, of all its machines, from `names`."""
    ours = re.compile(rf"{re.escape(identity)}-.+-({'|'.join(VOLUMES)})")
    return tuple(name for name in names if ours.fullmatch(name))
