"""The questions to a machine -> the shell program that answers them. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files as resources
from urllib.parse import urlsplit

from provision.artifacts import catalogue, images
from provision.artifacts.model import mirrored
from provision.desired import kernel_rules, lock_programs
from provision.desired.addons import OWN, Manifest, given_names
from provision.desired.catalog import spaces
from provision.desired.components import containerd, firewall, node, pod_network
from provision.desired.components.etcd import CA, LOCAL
from provision.desired.components.keepalived import CONFIG as KEEPALIVED
from provision.desired.components.node import CONFIG as KUBELET_CONFIG
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.settings.network import HttpProxy
from provision.pki.authority import Authority
from provision.pki.table import KUBELET_CLIENT, kubelet_client

# A jsonpath template: one line for each object that an ApiView is made of.
OBJECTS = (
    '{range .items[?(@.kind=="Node")]}node{"\\t"}{.metadata.name}{"\\t"}{.metadata.labels}{"\\t"}'
    '{.spec}{"\\t"}{.status.addresses}{"\\t"}{.status.conditions}{"\\t"}'
    '{.status.nodeInfo.kubeletVersion}{"\\t"}{.metadata.annotations}{"\\n"}{end}'
    '{range .items[?(@.metadata.name=="clusterctl")]}applied{"\\t"}{.data}{"\\n"}{end}'
)
# The whole objects of clusterctl's own manifests. Before them: for each Deployment, the wanted,
# running, updated and ready pods.
MANIFESTS = (
    '{range .items[?(@.kind=="Deployment")]}pods{"\\t"}{.metadata.namespace}{"\\t"}'
    '{.spec.replicas}{"\\t"}{.status.replicas}{"\\t"}{.status.updatedReplicas}{"\\t"}'
    '{.status.readyReplicas}{"\\n"}{end}'
    '{range .items[*]}object{"\\t"}{@}{"\\n"}{end}'
)
# The names of the objects of the operator's manifests. Only names: the objects may be Secrets.
GIVEN_MANIFESTS = (
    '{range .items[*]}object{"\\t"}{.apiVersion}{"\\t"}{.kind}{"\\t"}{.metadata.namespace}{"\\t"}'
    '{.metadata.name}{"\\t"}{.metadata.deletionTimestamp}{"\\n"}{end}'
)
PODS = (
    '{range .items[*]}pod{"\\t"}{.metadata.namespace}{"\\t"}{.metadata.name}{"\\t"}'
    '{.metadata.labels}{"\\t"}{.status.conditions}{"\\t"}{.status.containerStatuses}{"\\n"}{end}'
)

# Other Kubernetes distributions: a path that shows one -> its name.
SIGNS: Mapping[str, str] = {
    "/etc/kubernetes/manifests/kube-apiserver.yaml": "kubeadm",
    "/etc/kubernetes/kubelet.conf": "kubeadm",
    "/etc/rancher/k3s": "k3s",
    "/var/lib/rancher/k3s": "k3s",
    "/etc/rancher/rke2": "rke2",
    "/var/lib/rancher/rke2": "rke2",
    "/var/lib/k0s": "k0s",
    "/var/snap/microk8s": "microk8s",
}

# Units that take ports or files that a cluster needs, unless the cluster itself installed them.
SUSPECTS: Mapping[str, str] = {
    "kubelet.service": "kubelet",
    "etcd.service": "etcd",
    "containerd.service": "containerd",
    "crio.service": "cri-o",
    "docker.service": "docker",
}

# Units that create an nftables table. Any program that runs `nft flush ruleset` deletes it.
TABLES: Mapping[str, str] = {
    firewall.UNIT: f"inet {firewall.TABLE}",
    pod_network.MASQUERADE: pod_network.TABLE,
    node.PROXY: node.PROXY_TABLE,
}

UFW = "/etc/ufw/ufw.conf"
RESOLV_CONF = "/etc/resolv.conf"
# Files with the real servers, where /etc/resolv.conf names a resolver of the machine itself: those of
# systemd-resolved, of NetworkManager, and of dnsmasq with Debian's resolvconf.
UPSTREAMS = (
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/dnsmasq/resolv.conf",
)
SELINUX = "/sys/fs/selinux"
MODULES = "/lib/modules"
LOADED_MODULES = "/proc/modules"
# SELinux booleans that HAProxy and keepalived need; off by default.
HAPROXY_CONNECTS, KEEPALIVED_CONNECTS = "haproxy_connect_any", "keepalived_connect_any"


@dataclass(frozen=True)
class Query:
    """The questions to a machine.

    Attributes:
        address: the machine's own address in the machines' network.
        peers: (address, SSH port) of the other machines; a machine with a record does not try them.
        units, packages, certificates, files: names and paths in addition to those in its record.
        manifests: clusterctl's own manifests; the probe skips those that the machine does not have.
        given_manifests: the operator's manifests.
        vip: the API's virtual address; only a machine that does not hold it tries it.
        downloads: (server, URL) that a machine without a record tries: registries, servers of files,
            and their mirrors. A server answers if one of its URLs does.
        proxy: the proxy for the downloads.
        kubelet_client: the certificate of a kubelet that has joined.
        tables: nftables tables that the machine's units create.
        deep: hash every binary.
        places: directories that the cluster will use.
        rules: name -> rule of nftables that the kernel must take (`provision.desired.kernel_rules`).
    """

    address: str
    peers: tuple[tuple[str, int], ...] = ()
    units: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    manifests: tuple[Manifest, ...] = tuple(Manifest(name, b"") for name in OWN)
    given_manifests: tuple[Manifest, ...] = ()
    vip: str = ""
    downloads: tuple[tuple[str, str], ...] = ()
    proxy: HttpProxy = field(default_factory=HttpProxy)
    kubelet_client: str = KUBELET_CLIENT
    tables: tuple[str, ...] = tuple(TABLES.values())
    deep: bool = False
    places: tuple[str, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict)

    def program(self) -> str:
        """Write the shell program: the parameters, then `probe.sh`.

        Every user of the machine can read the program in the list of processes. The proxy's URL may
        have a password: only a machine that tries the downloads gets it.
        """
        proxy = self.proxy if self.downloads else HttpProxy()
        parameters = {
            "address": self.address,
            "peers": "\n".join(f"{address} {port}" for address, port in self.peers),
            "asked_units": "\n".join(self.units),
            "asked_packages": "\n".join(self.packages),
            "certificates": "\n".join(self.certificates),
            "files": "\n".join(self.files),
            "manifests": "\n".join(manifest.path for manifest in self.manifests),
            "given_manifests": "\n".join(manifest.path for manifest in self.given_manifests),
            "deep": "1" if self.deep else "",
            "places": "\n".join(self.places),
            "rules": "\n".join(f"{name} {rule}" for name, rule in self.rules.items()),
            "vip": self.vip,
            "downloads": "\n".join(f"{name} {url}" for name, url in self.downloads),
            "http_proxy": proxy.http or "",
            "https_proxy": proxy.https or "",
            "no_proxy": ",".join(proxy.no_proxy),
            "keepalived": KEEPALIVED,
            "api_port": str(ports.API),
            "ufw": UFW,
            "resolv_conf": RESOLV_CONF,
            "upstreams": "\n".join(UPSTREAMS),
            "all_modules": MODULES,
            "loaded_modules": LOADED_MODULES,
            "selinux": SELINUX,
            "selinux_booleans": f"{HAPROXY_CONNECTS}\n{KEEPALIVED_CONNECTS}",
            "suspects": "\n".join(SUSPECTS),
            "tables": "\n".join(self.tables),
            "signs": "\n".join(SIGNS),
            "authority": Authority.KUBERNETES.cert_path,
            "objects": OBJECTS,
            "objects_of_manifests": MANIFESTS,
            "objects_of_given_manifests": GIVEN_MANIFESTS,
            "pods_of_addons": PODS,
            "record": paths.RECORD,
            "who_holds_the_lock": lock_programs.inspect(),
            "etcdctl": f"{paths.BIN}/etcdctl",
            "etcd_endpoint": LOCAL,
            "etcd_ca": CA,
            "etcd_cert": f"{paths.ETCD_PKI}/healthcheck-client.crt",
            "etcd_key": f"{paths.ETCD_PKI}/healthcheck-client.key",
            "etcd_data": paths.ETCD_DATA,
            "etcd_formed": paths.ETCD_FORMED,
            "etcd_join": paths.ETCD_JOIN,
            "restoring": paths.RESTORING,
            "unfinished": paths.UNFINISHED,
            "repositories": f"{paths.REGISTRY}/{paths.REGISTRY_STORAGE}/repositories",
            "units_directory": paths.UNITS,
            "kubelet_config": KUBELET_CONFIG,
            "conflist": pod_network.CONFLIST,
            "results": pod_network.RESULTS,
            "bird": pod_network.SOCKET,
            "kubectl": f"{paths.BIN}/kubectl",
            "admin_conf": f"{paths.KUBERNETES}/admin.conf",
            "api_server": f"https://127.0.0.1:{ports.API}",
            "kubelet_client": self.kubelet_client,
        }
        lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in parameters.items())
        return lines + _probe()


def query(
    cluster: Cluster,
    machine: Machine,
    *,
    units: tuple[str, ...] = (),
    packages: tuple[str, ...] = (),
    certificates: tuple[str, ...] = (),
    files: tuple[str, ...] = (),
    reachability: bool = False,
    published: bool = False,
    deep: bool = False,
) -> Query:
    """The questions to a machine of this cluster.

    Args:
        units, packages, certificates, files, deep: see `Query`.
        reachability: a new machine also tries to connect to the other machines and to the virtual
            address, and to write and run a file in each directory that the cluster will use.
        published: whether the artifacts certainly come from publishers, as with the source
            `official`. Then a new machine also tries the servers, even without `reachability`.
    """
    others = [m for m in cluster.machines if m.name != machine.name] if reachability else []
    return Query(
        address=str(machine.address),
        peers=tuple((str(m.address), _ssh_port(m)) for m in others),
        units=units,
        packages=packages,
        certificates=certificates,
        files=files,
        given_manifests=tuple(Manifest(name, b"") for name in given_names(cluster)),
        vip=str(cluster.api.vip or "") if reachability and machine.is_master else "",
        downloads=_downloads(cluster, published=published) if reachability or published else (),
        proxy=cluster.proxy,
        kubelet_client=kubelet_client(cluster, machine).cert_path,
        tables=_tables(cluster),
        deep=deep,
        places=tuple(spaces(cluster, machine)) if reachability else (),
        rules=kernel_rules.rules(cluster, machine) if reachability else {},
    )


def _tables(cluster: Cluster) -> tuple[str, ...]:
    """Give the tables of `TABLES` that this cluster's units create."""
    by_proxy = cluster.networks.proxy_mode == "nftables"
    return tuple(table for table in TABLES.values() if table != node.PROXY_TABLE or by_proxy)


def _downloads(cluster: Cluster, *, published: bool) -> tuple[tuple[str, str], ...]:
    """Give the servers from which machines certainly download, and their mirrors.

    Machines that run on the operator's computer do not try the servers of files: that computer
    downloads the files for them.
    """
    if not (published or images.pulled_by_digest(cluster.artifacts.source)):
        return ()
    names = {ref.partition("/")[0] for ref in images.refs().values()}
    registries = tuple(
        (name, f"{url}/v2/")
        for name, upstream in sorted(containerd.UPSTREAMS.items())
        if name in names
        for url in (*containerd.mirrors(cluster, name), upstream)
    )
    return registries if cluster.source.is_here else (*registries, *_file_servers(cluster))


def _file_servers(cluster: Cluster) -> tuple[tuple[str, str], ...]:
    """Give a file of each server of release files, at its publisher or at the inventory's mirror."""
    urls = [pin.url for pin in catalogue.pins(cluster.kubernetes)]
    if cluster.artifacts.source == "mirror" and cluster.artifacts.mirror:
        urls = [mirrored(cluster.artifacts.mirror, url) for url in urls]
    return tuple({urlsplit(url).netloc: url for url in reversed(urls)}.items())


def _ssh_port(machine: Machine) -> int:
    """The port of the machine's sshd in the machines' network.

    If the operator uses another address than the other machines, the operator's port says nothing
    about it: then 22.
    """
    return machine.ssh.port if machine.ssh.hostname == str(machine.address) else 22


@cache
def _probe() -> str:
    return resources(__package__).joinpath("probe.sh").read_text()
