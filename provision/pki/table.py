"""The table of certificates: every leaf that a machine or a person has.

Each function returns one row. A file that kubeadm has too is at kubeadm's path.
"""

from __future__ import annotations

from typing import TypedDict

from provision.model.cluster import Cluster, Machine
from provision.model.paths import ETCD_PKI, KUBELET_DATA, PKI
from provision.pki.leaf import Authority, Leaf, Usage

SERVER = frozenset({Usage.SERVER})
CLIENT = frozenset({Usage.CLIENT})
BOTH = SERVER | CLIENT

KUBELET_CLIENT = f"{KUBELET_DATA}/pki/kubelet-client-current.pem"
LOOPBACK = "127.0.0.1"


def node_leaves(cluster: Cluster, machine: Machine) -> tuple[Leaf, ...]:
    """All leaves of a machine."""
    rows = []
    if machine.is_master:
        rows += [
            apiserver,
            apiserver_kubelet_client,
            apiserver_etcd_client,
            front_proxy_client,
            controller_manager,
            controller_manager_serving,
            scheduler,
            scheduler_serving,
            admin,
            registry,
        ]
        if cluster.source.has_cloud_controller:
            rows += [cloud_controller_manager, cloud_controller_manager_serving]
    if machine.has_etcd:
        rows += [etcd_server, etcd_peer, etcd_healthcheck]
    if machine.is_node:
        rows += [kubelet_serving, registry_client, proxy_probe]
        if cluster.certificates.external:
            rows.append(kubelet_client)
    return tuple(row(cluster, machine) for row in rows)


def apiserver(cluster: Cluster, machine: Machine) -> Leaf:
    api, networks = cluster.api, cluster.networks
    return Leaf(
        name="kube-apiserver",
        authority=Authority.KUBERNETES,
        common_name="kube-apiserver",
        usages=SERVER,
        dns=(
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{networks.domain}",
            "localhost",
            machine.name,
            *((api.name,) if api.name else ()),
        ),
        addresses=(
            str(machine.address),
            str(networks.kubernetes_service),
            LOOPBACK,
            *((str(api.vip),) if api.vip else ()),
        ),
        **_files(f"{PKI}/apiserver"),
    )


def apiserver_kubelet_client(cluster: Cluster, machine: Machine) -> Leaf:
    """For calls to the kubelets. RBAC binds the user to `system:kubelet-api-admin` only."""
    return _client("apiserver-kubelet-client", "kube-apiserver-kubelet-client")


def apiserver_etcd_client(cluster: Cluster, machine: Machine) -> Leaf:
    return _client("apiserver-etcd-client", "kube-apiserver-etcd-client", authority=Authority.ETCD)


def front_proxy_client(cluster: Cluster, machine: Machine) -> Leaf:
    """The apiserver vouches with it for users to aggregated APIs."""
    return _client("front-proxy-client", "front-proxy-client", authority=Authority.FRONT_PROXY)


def controller_manager(cluster: Cluster, machine: Machine) -> Leaf:
    return _client("controller-manager", "system:kube-controller-manager")


def cloud_controller_manager(cluster: Cluster, machine: Machine) -> Leaf:
    return _client("cloud-controller-manager", "clusterctl:cloud-controller-manager")


def scheduler(cluster: Cluster, machine: Machine) -> Leaf:
    return _client("scheduler", "system:kube-scheduler")


def admin(cluster: Cluster, machine: Machine) -> Leaf:
    """For emergencies, on masters only. `system:masters` needs no RBAC rules: it creates them."""
    return _client("admin", "kubernetes-admin", "system:masters")


def controller_manager_serving(cluster: Cluster, machine: Machine) -> Leaf:
    return _loopback("controller-manager-serving", "kube-controller-manager")


def cloud_controller_manager_serving(cluster: Cluster, machine: Machine) -> Leaf:
    return _loopback("cloud-controller-manager-serving", "aws-cloud-controller-manager")


def scheduler_serving(cluster: Cluster, machine: Machine) -> Leaf:
    return _loopback("scheduler-serving", "kube-scheduler")


def etcd_server(cluster: Cluster, machine: Machine) -> Leaf:
    """For etcd's clients. etcd's own gRPC gateway also uses it as a client."""
    return Leaf(
        name="etcd-server",
        authority=Authority.ETCD,
        common_name=machine.name,
        usages=BOTH,
        dns=(machine.name, "localhost"),
        addresses=(str(machine.address), LOOPBACK),
        owner="etcd",
        group="etcd",
        **_files(f"{ETCD_PKI}/server"),
    )


def etcd_peer(cluster: Cluster, machine: Machine) -> Leaf:
    """For members among each other: each member is a server and a client of the others."""
    return Leaf(
        name="etcd-peer",
        authority=Authority.ETCD,
        common_name=machine.name,
        usages=BOTH,
        dns=(machine.name,),
        addresses=(str(machine.address),),
        owner="etcd",
        group="etcd",
        **_files(f"{ETCD_PKI}/peer"),
    )


def etcd_healthcheck(cluster: Cluster, machine: Machine) -> Leaf:
    """For etcdctl on the member's machine."""
    return Leaf(
        name="etcd-healthcheck-client",
        authority=Authority.ETCD,
        common_name="etcd-healthcheck-client",
        usages=CLIENT,
        owner="etcd",
        group="etcd",
        **_files(f"{ETCD_PKI}/healthcheck-client"),
    )


def kubelet_serving(cluster: Cluster, machine: Machine) -> Leaf:
    return Leaf(
        name="kubelet-serving",
        authority=Authority.KUBERNETES,
        common_name=f"system:node:{machine.name}",
        organizations=("system:nodes",),
        usages=SERVER,
        dns=(machine.name,),
        addresses=(str(machine.address),),
        **_files(f"{KUBELET_DATA}/pki/kubelet"),
    )


def kubelet_client(cluster: Cluster, machine: Machine) -> Leaf:
    """The kubelet asks for it with a one-time token, and rotates it by itself.

    With an external authority it cannot ask: this leaf then has files like any other leaf.
    """
    files: _Files = {"cert_path": KUBELET_CLIENT, "key_path": KUBELET_CLIENT}
    if cluster.certificates.external:
        files = _files(f"{KUBELET_DATA}/pki/kubelet-client")
    return Leaf(
        name="kubelet-client",
        authority=Authority.KUBERNETES,
        common_name=f"system:node:{machine.name}",
        organizations=("system:nodes",),
        usages=CLIENT,
        **files,
    )


def registry(cluster: Cluster, machine: Machine) -> Leaf:
    """Clients reach the registry at the master's address, and through their node's loopback."""
    return Leaf(
        name="registry",
        authority=Authority.KUBERNETES,
        common_name="clusterctl:registry",
        usages=SERVER,
        dns=(machine.name,),
        addresses=(str(machine.address), LOOPBACK),
        **_files(f"{PKI}/registry"),
    )


def registry_client(cluster: Cluster, machine: Machine) -> Leaf:
    """For containerd, which pulls with it from the masters' registries."""
    return _client("registry-client", "clusterctl:registry-client")


def proxy_probe(cluster: Cluster, machine: Machine) -> Leaf:
    """HAProxy asks with it for /readyz. HAProxy looks for the key at its `crt` plus `.key`."""
    return Leaf(
        name="proxy-probe",
        authority=Authority.KUBERNETES,
        common_name="clusterctl:probe",
        usages=CLIENT,
        cert_path=f"{PKI}/proxy-probe.crt",
        key_path=f"{PKI}/proxy-probe.crt.key",
    )


def user(name: str, organizations: tuple[str, ...], hours: float) -> Leaf:
    """Identify a person, for `clusterctl kubeconfig`; no machine has the files."""
    return Leaf(
        name=f"user {name}",
        authority=Authority.KUBERNETES,
        common_name=name,
        organizations=organizations,
        usages=CLIENT,
        cert_path="",
        key_path="",
        days=hours / 24,
    )


def _client(
    name: str,
    common_name: str,
    *organizations: str,
    authority: Authority = Authority.KUBERNETES,
) -> Leaf:
    return Leaf(
        name=name,
        authority=authority,
        common_name=common_name,
        organizations=organizations,
        usages=CLIENT,
        **_files(f"{PKI}/{name}"),
    )


def _loopback(name: str, common_name: str) -> Leaf:
    return Leaf(
        name=name,
        authority=Authority.KUBERNETES,
        common_name=common_name,
        usages=SERVER,
        dns=("localhost",),
        addresses=(LOOPBACK,),
        **_files(f"{PKI}/{name}"),
    )


class _Files(TypedDict):
    cert_path: str
    key_path: str


def _files(stem: str) -> _Files:
    return {"cert_path": f"{stem}.crt", "key_path": f"{stem}.key"}
