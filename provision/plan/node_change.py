"""The changes on a Node object: only labels and taints that clusterctl sets. Pure.

Two annotations on the Node list the labels and taints that clusterctl has set. So clusterctl
removes a label that the inventory no longer has, and keeps labels that others set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provision.desired.components import node
from provision.model.cluster import Cluster, Machine, Taint
from provision.model.observed import NodeView

LABELS, TAINTS = "clusterctl/labels", "clusterctl/taints"


@dataclass(frozen=True)
class NodeChange:
    """The changes on one Node.

    Attributes:
        labels: key -> value to set; None: to remove.
        taints: `key=value:effect`, to set.
        untaint: `key:effect`, to remove.
        ours: for the annotations: keys of the labels and `key:effect` of the taints that clusterctl
            has set after this change.
    """

    labels: Mapping[str, str | None]
    taints: tuple[str, ...]
    untaint: tuple[str, ...]
    ours: tuple[tuple[str, ...], tuple[str, ...]]


def node_change(cluster: Cluster, machine: Machine, there: NodeView | None) -> NodeChange | None:
    """Give the changes on a machine's Node; None: there are no changes.

    Args:
        there: the Node; None: it does not exist yet. The kubelet registers it with its taints.
    """
    labels = node.labels(cluster, machine)
    taints = {_kind(taint): str(taint) for taint in node.taints(cluster, machine)}
    ours = (tuple(sorted(labels)), tuple(sorted(taints)))
    if there is None:
        return NodeChange(labels, (), (), ours)
    had_labels, had_taints = (_split(there.annotations.get(name)) for name in (LABELS, TAINTS))
    kinds = {_kind_of(taint) for taint in there.taints}
    change = NodeChange(
        labels={
            **{key: value for key, value in labels.items() if there.labels.get(key) != value},
            **{key: None for key in had_labels if key not in labels and key in there.labels},
        },
        taints=tuple(t for t in taints.values() if t not in there.taints),
        untaint=tuple(kind for kind in had_taints if kind not in taints and kind in kinds),
        ours=ours,
    )
    same = had_labels == ours[0] and had_taints == ours[1]
    return None if same and not (change.labels or change.taints or change.untaint) else change


def _kind(taint: Taint) -> str:
    return f"{taint.key}:{taint.effect}"


def _kind_of(taint: str) -> str:
    key, _, effect = taint.partition(":")
    return f"{key.partition('=')[0]}:{effect}"


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
