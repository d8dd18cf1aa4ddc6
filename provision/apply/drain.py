"""Drain a node with kubectl's own drain; find the pods and budgets that block it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from shlex import quote
from typing import Any

from provision.apply import kubectl
from provision.apply.checked import checked, trimmed
from provision.apply.local_volumes import LocalVolume, volumes_of
from provision.apply.session import Session
from provision.desired.components.control_plane import KUBECTL
from provision.model.cluster import Machine
from provision.model.commands import clusterctl
from provision.model.errors import Failure, PhaseError, RefusedError

_MARGIN = 60  # seconds that kubectl gets beyond its own limit


class Pdb(StrEnum):
    """What to do about a PodDisruptionBudget that allows no disruption now."""

    WAIT = "wait"
    FAIL = "fail"
    FORCE = "force"


@dataclass(frozen=True)
class Workload:
    """What runs on a node.

    Attributes:
        pods: `namespace/name` of all pods that a drain must move; not those of DaemonSets.
        orphans: those of them without a controller: no other node would start them again.
        blocked: pod -> the PodDisruptionBudget that allows no eviction of it now.
        volumes: those that exist on this machine only.
    """

    pods: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    blocked: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[LocalVolume, ...] = ()


def workload(session: Session, leader: Machine, node: str) -> Workload:
    """Look at what runs on a node.

    Raises:
        PhaseError: the API does not answer.
    """
    get = f"{KUBECTL} get"
    program = (
        f"{get} pods -A --field-selector=spec.nodeName={quote(node)} -o json && echo --- && "
        f"{get} poddisruptionbudgets -A -o json && echo --- && {get} persistentvolumes -o json"
    )
    answer = kubectl.run(session, leader, program)
    out = checked(answer, leader, "drain", "look at the pods")
    return judge(node, *(json.loads(part)["items"] for part in out.split("\n---\n")))


def judge(
    node: str,
    pods: list[dict[str, Any]],
    budgets: list[dict[str, Any]],
    volumes: list[dict[str, Any]],
) -> Workload:
    """What runs on a node, from the API's objects. Pure."""
    going = [pod for pod in pods if _goes(pod)]
    return Workload(
        pods=tuple(_name(pod) for pod in going),
        orphans=tuple(_name(pod) for pod in going if not pod["metadata"].get("ownerReferences")),
        blocked={_name(pod): _name(b) for pod in going for b in budgets if _blocks(b, pod)},
        volumes=volumes_of(node, volumes, pods),
    )


def drain(
    session: Session, leader: Machine, node: str, *, pdb: Pdb, timeout: int, orphans: bool
) -> None:
    """Move a node's pods to other nodes.

    Args:
        pdb: what to do about budgets that allow no disruption.
        timeout: seconds until the drain is given up; the node then stays cordoned.
        orphans: also delete pods that have no controller.

    Raises:
        RefusedError: nothing was changed: pods would be lost, or a budget blocks the drain (FAIL).
        PhaseError: the node was not drained in time; names what blocks the drain.
    """
    there = workload(session, leader, node)
    if there.orphans and not orphans:
        message = (
            f"these pods of {node} have no controller and would be lost: {', '.join(there.orphans)}"
        )
        raise RefusedError(message, hint="delete them yourself, or use --force")
    if there.blocked and pdb is Pdb.FAIL:
        message = f"PodDisruptionBudgets block the drain of {node}: {_ways(there)}"
        raise RefusedError(message, hint="add replicas, or wait for them: --pdb wait")
    flags = ["--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={timeout}s"]
    if orphans:
        flags.append("--force")
    if pdb is Pdb.FORCE:
        flags.append("--disable-eviction")
    command = f"{KUBECTL} drain {quote(node)} {' '.join(flags)}"
    code, _, error = kubectl.run(session, leader, command, timeout=timeout + _MARGIN)
    if code == 0:
        return
    left = workload(session, leader, node)
    undo = clusterctl("kubectl", session.cluster.inventory, "--", "uncordon", node)
    cause = _ways(left) or ", ".join(left.pods) or trimmed(error)
    raise PhaseError(
        "drain",
        [Failure(node, f"drain within {timeout} s", f"still there: {cause}")],
        hint=f"{node} takes no new pods; this undoes that: {undo}. Add replicas, or "
        "use --pdb force to delete pods in spite of their budgets",
    )


def _ways(there: Workload) -> str:
    return ", ".join(f"{pod} (budget {budget})" for pod, budget in there.blocked.items())


def _name(thing: Mapping[str, Any]) -> str:
    return f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"


def _goes(pod: Mapping[str, Any]) -> bool:
    owners = pod["metadata"].get("ownerReferences", [])
    ended = pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    return not ended and all(owner["kind"] not in {"DaemonSet", "Node"} for owner in owners)


def _blocks(budget: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    same = budget["metadata"]["namespace"] == pod["metadata"]["namespace"]
    selector = budget["spec"].get("selector")
    allowed = budget.get("status", {}).get("disruptionsAllowed", 0)
    return same and selector is not None and not allowed and _selects(selector, pod)


def _selects(selector: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    """Whether a selector selects the pod. As in policy/v1, an empty selector selects all pods."""
    labels = pod["metadata"].get("labels", {})
    if any(labels.get(k) != v for k, v in selector.get("matchLabels", {}).items()):
        return False
    for wanted in selector.get("matchExpressions", []):
        key, values = wanted["key"], wanted.get("values", [])
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds[wanted["operator"]]:
            return False
    return True
