"""The manifests of a cluster. Pure: text from the cluster and the trust."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from provision.artifacts import images
from provision.desired.components.group import BOOTSTRAPPERS
from provision.desired.components.node import CONTROL_PLANE, taints
from provision.desired.render import render
from provision.model import paths
from provision.model.cluster import Cluster
from provision.pki import table

# Service accounts for admins under an external authority: then clusterctl issues no certificates.
ADMINS = "clusterctl-admins"

# Manifests from clusterctl's own templates. Each cluster uses some of them.
OWN = (
    "access",
    "cloud-controller",
    "network-policy-warning",
    "coredns",
    "metrics-server",
    "local-path",
)


@dataclass(frozen=True)
class Manifest:
    """Objects that are applied together, server-side.

    Attributes:
        name: `coredns`.
        content: YAML documents.
        deployment: `namespace/name` that must be available afterwards; empty if none.
        early: applied before nodes join, because nodes need it to join.
        given: whether it is the operator's file (`networks.manifests`).
    """

    name: str
    content: bytes
    deployment: str = ""
    early: bool = False
    given: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def path(self) -> str:
        """Give the manifest's path on every master."""
        return f"{paths.MANIFESTS}/{self.name}.yaml"

    @property
    def objects(self) -> tuple[Mapping[str, Any], ...]:
        """Give its objects, and each object of a List.

        Raises:
            yaml.YAMLError: an operator's file is not YAML.
        """
        return _objects(self.content)


@cache
def _objects(content: bytes) -> tuple[Mapping[str, Any], ...]:
    # The loader in pure Python needs seconds for Calico's manifest.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(_flat(yaml.load_all(content, loader)))


def _flat(documents: Iterator[Any]) -> Iterator[Mapping[str, Any]]:
    for document in documents:
        if not isinstance(document, Mapping):
            continue
        if str(document.get("kind", "")).endswith("List") and "items" in document:
            yield from _flat(iter(document["items"] or ()))
        elif {"apiVersion", "kind"} <= document.keys() and "name" in (
            document.get("metadata") or {}
        ):
            yield document


def deployments(cluster: Cluster) -> dict[str, str]:
    """Add-on -> `namespace/name` of its Deployment, of the cluster's add-ons that have one."""
    addons = cluster.addons
    wanted = {
        "coredns": (addons.coredns, "kube-system/coredns"),
        "metrics-server": (addons.metrics_server, "kube-system/metrics-server"),
        "local-path": (addons.local_path, "local-path-storage/local-path-provisioner"),
    }
    return {name: deployment for name, (on, deployment) in wanted.items() if on}


def given_names(cluster: Cluster) -> tuple[str, ...]:
    """Give the names of the manifests that are files of the operator."""
    return tuple(f"network-{path.stem}" for path in cluster.networks.manifests)


def manifests(cluster: Cluster, authority: bytes) -> tuple[Manifest, ...]:
    """Give all manifests, in the order in which they are applied.

    Args:
        authority: PEM of the certificates that sign the kubelets' serving certificates.
    """
    by_digest = images.pulled_by_digest(cluster.artifacts.source)
    refs = images.refs(by_digest=by_digest)
    deployed = deployments(cluster)
    kubelet_client = table.apiserver_kubelet_client(cluster, cluster.masters[0])
    wanted = [
        Manifest(
            "access",
            render(
                "manifests/access.yaml.j2",
                kubelet_client=kubelet_client.common_name,
                group=BOOTSTRAPPERS if cluster.source.has_group else "",
                asks=not cluster.certificates.external,
                admins=ADMINS,
            ),
            early=True,
        )
    ]
    if cluster.source.has_cloud_controller:
        user = table.cloud_controller_manager(cluster, cluster.masters[0]).common_name
        content = render("manifests/cloud-controller.yaml.j2", user=user)
        wanted.append(Manifest("cloud-controller", content, early=True))
    if cluster.networks.plugin == "routed":
        wanted.append(
            Manifest(
                "network-policy-warning",
                render("manifests/network-policy-warning.yaml.j2"),
                early=True,
            )
        )
    wanted += [
        Manifest(name, text.encode(), early=True, given=True)
        for name, text in zip(given_names(cluster), cluster.files.manifests, strict=True)
    ]
    if cluster.addons.coredns:
        content = render(
            "manifests/coredns.yaml.j2",
            image=refs["coredns"],
            domain=cluster.networks.domain,
            address=cluster.networks.dns_service,
            replicas=_replicas(cluster),
        )
        wanted.append(Manifest("coredns", content, deployed["coredns"]))
    if cluster.addons.metrics_server:
        content = render(
            "manifests/metrics-server.yaml.j2",
            image=refs["metrics-server"],
            authority=authority.decode().strip(),
            replicas=_replicas(cluster),
        )
        wanted.append(Manifest("metrics-server", content, deployed["metrics-server"]))
    if cluster.addons.local_path:
        content = render(
            "manifests/local-path.yaml.j2",
            image=refs["local-path-provisioner"],
            helper=refs["busybox"],
        )
        wanted.append(Manifest("local-path", content, deployed["local-path"]))
    return tuple(wanted)


def _replicas(cluster: Cluster) -> int:
    """Give the number of copies of an add-on: two if two nodes can run it, else one."""
    tolerated = {(CONTROL_PLANE, "NoSchedule")}
    schedulable = [
        machine
        for machine in cluster.nodes
        if all(
            taint.effect == "PreferNoSchedule" or (taint.key, taint.effect) in tolerated
            for taint in taints(cluster, machine)
        )
    ]
    return 2 if len(schedulable) > 1 else 1
