"""The manifests of a cluster. Pure: text from the cluster and the trust."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from provision.artifacts import images
from provision.desired.components.group import BOOTSTRAPPERS
from provision.desired.components.node import CONTROL_PLANE, taints
from provision.desired.render import render
from provision.model import paths
from provision.model.cluster import Cluster
from provision.pki import table
from provision.pki.authority import Authority
from provision.pki.trust import Trust

# Service accounts for admins under an external authority: then clusterctl issues no certificates.
ADMINS = "clusterctl-admins"


@dataclass(frozen=True)
class Manifest:
    """Objects that are applied together, server-side.

    Attributes:
        name: `coredns`.
        content: YAML documents.
        deployment: `namespace/name` that must be available afterwards; empty if none.
        early: applied before nodes join, because nodes need it to join.
    """

    name: str
    content: bytes
    deployment: str = ""
    early: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def path(self) -> str:
        """Give the manifest's path on every master."""
        return f"{paths.MANIFESTS}/{self.name}.yaml"


def deployments(cluster: Cluster) -> dict[str, str]:
    """Add-on -> `namespace/name` of its Deployment, of the cluster's add-ons that have one."""
    addons = cluster.addons
    wanted = {
        "coredns": (addons.coredns, "kube-system/coredns"),
        "metrics-server": (addons.metrics_server, "kube-system/metrics-server"),
        "local-path": (addons.local_path, "local-path-storage/local-path-provisioner"),
    }
    return {name: deployment for name, (on, deployment) in wanted.items() if on}


def manifests(cluster: Cluster, trust: Trust) -> tuple[Manifest, ...]:
    """Give all manifests, in the order in which they are applied."""
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
        Manifest(f"network-{path.stem}", text.encode(), early=True)
        for path, text in zip(cluster.networks.manifests, cluster.files.manifests, strict=True)
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
            authority=trust.bundle(Authority.KUBERNETES).decode().strip(),
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
    """Give two copies of an add-on if two nodes can have one each; else one."""
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
