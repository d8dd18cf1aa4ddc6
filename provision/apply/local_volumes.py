"""Volumes on a machine's own disk: found before the machine leaves, deleted with its Node.

A volume that stayed would be empty on a new machine of the same name, and its pods would start on
it as if their data were there. Without the volume, its claim is Lost: the operator decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

from provision.apply import kubectl
from provision.apply.checked import checked
from provision.apply.session import Session
from provision.desired.components.control_plane import KUBECTL
from provision.model.cluster import Machine

_UNFINALIZED = quote(json.dumps({"metadata": {"finalizers": None}}))


@dataclass(frozen=True)
class LocalVolume:
    """A PersistentVolume that exists on one machine only.

    Attributes:
        name: name of the PersistentVolume.
        claim: `namespace/claim`; empty: it is not claimed.
        pods: `namespace/pod` of the pods that use the claim.
    """

    name: str
    claim: str = ""
    pods: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.claim:
            return f"{self.name} (not claimed)"
        pods = f", pods {', '.join(self.pods)}" if self.pods else ""
        return f"{self.name} (claim {self.claim}{pods})"


def volumes_of(
    node: str, volumes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]
) -> tuple[LocalVolume, ...]:
    """Find the volumes that exist on this machine only, in the API's objects. Pure."""
    users = _users(pods)
    found = []
    for volume in volumes:
        if _bound_to(volume, node):
            ref = volume["spec"].get("claimRef")
            claim = f"{ref['namespace']}/{ref['name']}" if ref else ""
            found.append(LocalVolume(volume["metadata"]["name"], claim, users.get(claim, ())))
    return tuple(found)


def deletion(volumes: Iterable[LocalVolume]) -> str:
    """Give the program that deletes the volumes, but no claim. It may run again.

    One finalizer protects a volume while its claim exists; others wait for programs of the machine
    that is gone. So the program removes all finalizers.
    """
    return "".join(
        f"{KUBECTL} delete persistentvolume {name} --ignore-not-found --wait=false >/dev/null || exit 1\n"
        f"said=$({KUBECTL} patch persistentvolume {name} --type=merge -p {_UNFINALIZED} 2>&1) || "
        'case $said in *NotFound*) ;; *) echo "$said" >&2; exit 1 ;; esac\n'
        for name in (quote(volume.name) for volume in volumes)
    )


def lost(
    session: Session, leader: Machine, volumes: Iterable[LocalVolume]
) -> tuple[LocalVolume, ...]:
    """Find the volumes whose claims still exist, with the pods that use the claims now.

    Raises:
        PhaseError: the API does not answer.
    """
    claimed = [volume for volume in volumes if volume.claim]
    if not claimed:
        return ()
    namespaces = sorted({volume.claim.partition("/")[0] for volume in claimed})
    program = " && ".join(
        f"{KUBECTL} get persistentvolumeclaims,pods -n {quote(name)} -o json && echo ---"
        for name in namespaces
    )
    answer = kubectl.run(session, leader, program)
    out = checked(answer, leader, "volumes", "look at the claims")
    objects = [item for part in out.split("\n---\n") if part for item in json.loads(part)["items"]]
    return still_claimed(claimed, objects)


def still_claimed(
    volumes: Iterable[LocalVolume], objects: Iterable[Mapping[str, Any]]
) -> tuple[LocalVolume, ...]:
    """Select the deleted volumes that still have a claim. Pure.

    Args:
        objects: claims and pods.
    """
    objects = list(objects)
    claims = {
        _name(item): item["spec"].get("volumeName")
        for item in objects
        if item["kind"] == "PersistentVolumeClaim"
    }
    users = _users(item for item in objects if item["kind"] == "Pod")
    return tuple(
        replace(volume, pods=users.get(volume.claim, ()))
        for volume in volumes
        if claims.get(volume.claim) == volume.name
    )


def _users(pods: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """`namespace/claim` -> the pods that use it."""
    users: dict[str, tuple[str, ...]] = {}
    for pod in pods:
        if pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
            continue
        for claim in _claims(pod):
            users[claim] = (*users.get(claim, ()), _name(pod))
    return users


def _claims(pod: Mapping[str, Any]) -> Iterator[str]:
    metadata = pod["metadata"]
    for volume in pod.get("spec", {}).get("volumes", []):
        if "persistentVolumeClaim" in volume:
            yield f"{metadata['namespace']}/{volume['persistentVolumeClaim']['claimName']}"
        elif "ephemeral" in volume:  # the claim of a generic ephemeral volume
            yield f"{metadata['namespace']}/{metadata['name']}-{volume['name']}"


def _bound_to(volume: Mapping[str, Any], node: str) -> bool:
    """Whether a volume's affinity allows this node and no other."""
    required = volume["spec"].get("nodeAffinity", {}).get("required", {})
    terms = required.get("nodeSelectorTerms", [])
    # Each term is an alternative; all expressions of a term must hold.
    return bool(terms) and all(
        any(
            wanted["key"] in {"kubernetes.io/hostname", "metadata.name"}
            and wanted["operator"] == "In"
            and wanted["values"] == [node]
            for wanted in (*term.get("matchExpressions", []), *term.get("matchFields", []))
        )
        for term in terms
    )


def _name(thing: Mapping[str, Any]) -> str:
    return f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"
