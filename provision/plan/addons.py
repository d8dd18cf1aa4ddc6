"""The cluster's manifests, compared with what the API has: objects, and pods that are ready. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from provision.desired.addons import Manifest, deployments, manifests
from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.errors import Failure
from provision.model.observed import ApiView, Observed, PodView, api_view
from provision.plan.objects import differences

_PATHS = 3  # more differences of one object are counted, not named


def why_applied(manifest: Manifest, observed: Mapping[str, Observed]) -> str:
    """Say why `up` must apply a manifest; empty: no reason.

    It compares the objects only if the API has the present manifest; else `up` applies it anyway.
    """
    api = api_view(observed)
    if api is None and any(view.etcd_formed for view in observed.values()):
        return "no apiserver is ready to say whether it was applied"
    applied = "" if api is None else api.applied.get(manifest.name, "")
    if not applied:
        return "new"
    if applied != manifest.sha256:
        return "its content differs"
    return "; ".join(lacking(manifest, observed))


def lacking(manifest: Manifest, observed: Mapping[str, Observed]) -> tuple[str, ...]:
    """Name the objects of an applied manifest that are missing or differ.

    Empty if the machine did not read the objects, or read those of another manifest.
    """
    name, api = _leader(observed)
    live = None if api is None else api.given if manifest.given else api.objects
    if api is None or live is None or api.applied.get(manifest.name) != manifest.sha256:
        return ()
    # The machine read the objects that its own file names.
    file = observed[name].files.get(manifest.path)
    if file is None or file.sha256 != manifest.sha256:
        return ()
    try:
        wanted = manifest.objects
    except yaml.YAMLError:
        return ()  # kubectl says what is wrong with the operator's file
    there = {_key(thing): thing for thing in live}
    return tuple(
        f"{thing['kind']} {thing['metadata']['name']} {fault}"
        for thing in wanted
        if not _ends_by_itself(thing)
        and (fault := _fault(thing, _found(thing, there), given=manifest.given))
    )


def lacking_problems(cluster: Cluster, observed: Mapping[str, Observed]) -> tuple[str, ...]:
    """Give a sentence for each manifest whose objects are missing or differ."""
    name, api = _leader(observed)
    if api is None:
        return ()
    return tuple(
        f"{name}: manifest {manifest.name}: {'; '.join(faults)}: {clusterctl('up', cluster.inventory)}"
        for manifest in manifests(cluster, api.authority.encode())
        if (faults := lacking(manifest, observed))
    )


def judge_addons(cluster: Cluster, observed: Mapping[str, Observed]) -> list[Failure]:
    """Find add-ons that do not run with all their pods, according to the API.

    Without an apiserver that is ready the list is empty: `verify.judge` has that failure.
    """
    name, api = _leader(observed)
    if api is None:
        return []
    if api.objects is None or api.unread:
        cause = api.unread or "their objects were not read"
        return [Failure(name, "add-ons", cause)]
    there = {_key(thing): thing for thing in api.objects}
    # Kubernetes starts the pods of such a node elsewhere, but only after a time, and only if another
    # node has a place for them.
    takes_pods = {node.name: node.ready and not node.unschedulable for node in api.nodes}
    away = sum(
        not (observed[m.name].reachable and takes_pods.get(m.name, True))
        for m in cluster.nodes
        if m.name in observed
    )
    failures = []
    for deployment in deployments(cluster).values():
        namespace, _, of = deployment.partition("/")
        found = there.get(("apps", "Deployment", namespace, of))
        cause = _unready(found, api, away) if found else "it does not exist"
        if cause:
            failures.append(Failure(name, f"add-on {deployment}", cause))
    return failures


def replicas(api: ApiView) -> dict[str, tuple[int, int]]:
    """Give `namespace/name` -> (ready, wanted) pods, of the Deployments of clusterctl's manifests."""
    return {
        f"{thing['metadata']['namespace']}/{thing['metadata']['name']}": (
            int(thing.get("status", {}).get("readyReplicas", 0)),
            int(thing["spec"].get("replicas", 1)),
        )
        for thing in api.objects or ()
        if thing["kind"] == "Deployment"
    }


def _leader(observed: Mapping[str, Observed]) -> tuple[str, ApiView | None]:
    """Give the machine whose apiserver is used, and that apiserver's view."""
    api = api_view(observed)
    return next(
        ((name, api) for name, view in observed.items() if api and view.api is api), ("", None)
    )


Key = tuple[str, str, str, str]


def _key(thing: Mapping[str, Any]) -> Key:
    metadata = thing["metadata"]
    group = str(thing["apiVersion"]).rpartition("/")[0]
    return group, thing["kind"], metadata.get("namespace") or "", str(metadata["name"])


def _found(
    wanted: Mapping[str, Any], there: Mapping[Key, Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Find the live object of a manifest's object.

    A manifest may leave out the namespace `default`, and may give a namespace to a
    cluster-wide object.
    """
    group, kind, namespace, name = _key(wanted)
    places = (namespace, "") if namespace else ("", "default")
    return next((live for place in places if (live := there.get((group, kind, place, name)))), None)


def _fault(wanted: Mapping[str, Any], live: Mapping[str, Any] | None, *, given: bool) -> str:
    if live is None:
        return "is missing"
    if "deletionTimestamp" in live["metadata"]:
        return "is being deleted"
    # Controllers of the operator's own software may change its objects.
    if given or not (found := differences(wanted, live)):
        return ""
    more = f" and {len(found) - _PATHS} more" if len(found) > _PATHS else ""
    return f"differs in {', '.join(found[:_PATHS])}{more}"


def _ends_by_itself(thing: Mapping[str, Any]) -> bool:
    """Whether Kubernetes deletes the object at the end of its work."""
    return "ttlSecondsAfterFinished" in (thing.get("spec") or {})


def _unready(deployment: Mapping[str, Any], api: ApiView, away: int) -> str:
    """Say why a Deployment does not run as it should; empty: it does.

    The rules are those of `kubectl rollout status`: a broken rollout beside a ready old pod fails too.

    Args:
        away: number of nodes that do not answer or take no pods. As many pods may be missing, but
            not all.
    """
    spec, status = deployment["spec"], deployment.get("status", {})
    wanted = int(spec.get("replicas", 1))
    running, updated, ready = (
        int(status.get(key, 0)) for key in ("replicas", "updatedReplicas", "readyReplicas")
    )
    needed = max(min(wanted, 1), wanted - away)
    causes = []
    if ready < needed:
        causes.append(f"{ready} of {wanted} pods are ready")
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        causes.append("its last change has not begun to roll out")
    elif updated < needed:
        causes.append(f"{updated} of {wanted} pods have its last change")
    if running > updated:
        causes.append(f"its rollout has not ended; pods of the version before: {running - updated}")
    if not causes:
        return ""
    return "; ".join((*causes, *_reasons(deployment, api.waiting)))


def _reasons(deployment: Mapping[str, Any], waiting: tuple[PodView, ...]) -> Iterator[str]:
    labels = deployment["spec"]["selector"].get("matchLabels", {}).items()
    for pod in waiting:
        if pod.namespace == deployment["metadata"]["namespace"] and labels <= pod.labels.items():
            yield f"{pod.name}: {pod.why}"
