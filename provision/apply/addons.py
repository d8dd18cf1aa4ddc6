"""Shell programs that a master runs to apply manifests and to mark Nodes. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime

from provision.desired.addons import Manifest
from provision.desired.components.control_plane import KUBECTL
from provision.plan.node_change import LABELS, TAINTS, NodeChange

_REGISTERED = 60  # seconds until a kubelet that has started must have made its Node
APPLY = f"{KUBECTL} apply --server-side --force-conflicts --field-manager=clusterctl"


def apply_manifests(wanted: Iterable[Manifest], applied: Mapping[str, str]) -> str:
    """Apply all manifests, then record their hashes in the cluster (ConfigMap `clusterctl`).

    Manifests that nodes need are applied one by one: an operator's file may define what the next
    file uses. The add-ons are applied in one call: starting kubectl takes longer than its work.

    Args:
        applied: name -> hash that the ConfigMap has now; these entries are kept.
    """
    wanted = tuple(wanted)
    lines = ["set -eu"]
    early = [[m] for m in wanted if m.early]
    addons = [m for m in wanted if not m.early]
    for group in (*early, *([addons] if addons else ())):
        files = " ".join(f"-f {shlex.quote(m.path)}" for m in group)
        lines.append(f"{APPLY} {files} >/dev/null")
    data = {**applied, **{m.name: m.sha256 for m in wanted}}
    lines.append(_remember(data))
    return "\n".join(lines)


def delete_manifests(names: Iterable[str], applied: Mapping[str, str]) -> str:
    """Delete the objects of manifests that are no longer wanted, by the files on the master.

    Args:
        applied: name -> hash that the ConfigMap has now.
    """
    names = tuple(names)
    lines = ["set -eu"]
    for name in names:
        path = shlex.quote(Manifest(name, b"").path)
        lines.append(
            f"test ! -f {path} || {KUBECTL} delete --ignore-not-found --wait=false -f {path} >/dev/null"
        )
    lines.append(_remember({k: v for k, v in applied.items() if k not in names}))
    return "\n".join(lines)


def _remember(data: Mapping[str, str]) -> str:
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "clusterctl", "namespace": "kube-system"},
        "data": dict(data),
    }
    return f"printf %s {shlex.quote(json.dumps(config_map))} | {APPLY} -f - >/dev/null"


def wait_for_deployments(names: Iterable[str], timeout: int) -> str:
    """Wait until each `namespace/name` is rolled out.

    Args:
        timeout: seconds, for each.
    """
    lines = ["set -eu"]
    for name in names:
        namespace, deployment = name.split("/")
        lines.append(
            f"{KUBECTL} -n {namespace} rollout status deployment/{deployment} "
            f"--timeout={timeout}s >/dev/null"
        )
    return "\n".join(lines)


def mark_nodes(changes: Mapping[str, NodeChange]) -> str:
    """Set labels and taints as soon as each Node exists, and remove those no longer wanted.

    Only labels and taints that clusterctl set, and the inventory no longer has, are removed. An
    annotation of the Node names them before they are set, and until they are removed.
    """
    lines = ["set -eu"]
    # One call for all Nodes that change in the same way, as starting kubectl takes so long.
    alike: dict[str, list[str]] = {}
    for name, change in changes.items():
        alike.setdefault(repr(change), []).append(name)
    for names in alike.values():
        change, nodes = changes[names[0]], " ".join(names)
        there = " ".join(f"node/{name}" for name in names)
        labels, taints = change.ours
        metadata = {
            "labels": dict(change.labels),
            "annotations": {LABELS: ",".join(labels), TAINTS: ",".join((*taints, *change.untaint))},
        }
        patch = shlex.quote(json.dumps({"metadata": metadata}))
        lines += [
            # Not `kubectl wait --for=create`: it ends when the first of them exists.
            f"end=$(($(date +%s) + {_REGISTERED}))",
            f"until missing=$({KUBECTL} get {there} -o name 2>&1); do",
            '    [ "$(date +%s)" -lt "$end" ] || { echo "$missing" >&2; exit 1; }',
            "    sleep 0.2",
            "done",
            f"{KUBECTL} patch node {nodes} --type=merge --patch={patch} >/dev/null",
        ]
        if words := [*change.taints, *(f"{kind}-" for kind in change.untaint)]:
            taint = shlex.join(words)
            lines.append(f"{KUBECTL} taint --overwrite node {nodes} {taint} >/dev/null")
        if change.untaint:
            kept = shlex.quote(f"{TAINTS}={','.join(taints)}")
            lines.append(f"{KUBECTL} annotate --overwrite node {nodes} {kept} >/dev/null")
    return "\n".join(lines)


def wait_for_nodes(names: Iterable[str], timeout: int) -> str:
    """Wait until each Node is Ready; on failure, print the message of each Ready condition.

    Args:
        timeout: seconds.
    """
    nodes = " ".join(f"node/{name}" for name in names)
    return (
        f"{KUBECTL} wait --for=condition=Ready --timeout={timeout}s {nodes} >/dev/null || "
        "{ rc=$?; "
        f"{KUBECTL} get {nodes} -o jsonpath="
        "'{range .items[*]}{.metadata.name}: "
        '{.status.conditions[?(@.type=="Ready")].message}{"\\n"}{end}\' >&2; exit $rc; }'
    )


def bootstrap_token(token_id: str, secret: str, expires: datetime) -> bytes:
    """The Secret, JSON, of a token with which kubelets ask for their first certificate.

    Args:
        expires: aware.
    """
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
        "stringData": {
            "token-id": token_id,
            "token-secret": secret,
            "expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:clusterctl",
        },
    }
    return json.dumps(manifest).encode()


def forget_token(token_id: str) -> str:
    return (
        f"{KUBECTL} -n kube-system delete secret bootstrap-token-{token_id} "
        "--ignore-not-found >/dev/null"
    )
