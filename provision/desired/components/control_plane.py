"""kube-apiserver, kube-controller-manager and kube-scheduler, on every master.

The flags have the form that the checks of CIS 1.12 look for in argv.
"""

from __future__ import annotations

from collections.abc import Mapping

from provision.desired.components import etcd
from provision.desired.flags import CIPHER_SUITES, flags
from provision.desired.model import (
    Allow,
    Binary,
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Listens,
    Port,
    Space,
    Unit,
    Who,
)
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki import kubeconfig, table
from provision.pki.leaf import Leaf
from provision.pki.trust import SIGNING_CA, Trust

CA = f"{paths.PKI}/ca.crt"
OWN_API = f"https://127.0.0.1:{ports.API}"
ADMIN = f"{paths.KUBERNETES}/admin.conf"
# Namespaces of the add-ons, whose pods need access to the host.
OWN_NAMESPACES = ("kube-system", "local-path-storage")
KUBECTL = f"{paths.BIN}/kubectl --kubeconfig={ADMIN}"


def _trust_files(trust: Trust, *names: str) -> tuple[HostFile, ...]:
    return tuple(
        HostFile(
            path,
            file.content,
            mode=0o600 if file.secret else 0o644,
            secret=file.secret,
        )
        for path, file in trust.files().items()
        if path.removeprefix(f"{paths.PKI}/") in names
    )


def _unit(name: str, arguments: dict[str, str], cluster: Cluster, facts: Facts) -> HostFile:
    return HostFile(
        f"{paths.UNITS}/{name}.service",
        render(
            f"{name}/{name}.service.j2",
            bin=paths.BIN,
            may_raise_limits=facts.may_raise_limits,
            flags=flags(arguments, cluster.extra_args.get(name, {})),  # type: ignore[call-overload]
        ),
    )


class _Leaves:
    """The certificates that an apiserver uses, and the one for admins on its machine."""

    def __init__(self, cluster: Cluster, machine: Machine) -> None:
        self.serving = table.apiserver(cluster, machine)
        self.kubelet_client = table.apiserver_kubelet_client(cluster, machine)
        self.etcd_client = table.apiserver_etcd_client(cluster, machine)
        self.front_proxy = table.front_proxy_client(cluster, machine)
        self.admin = table.admin(cluster, machine)


def issuer(cluster: Cluster) -> str:
    """Give the issuer of the tokens of service accounts."""
    own = f"https://kubernetes.default.svc.{cluster.networks.domain}"
    return cluster.extra_args.get("kube-apiserver", {}).get("service-account-issuer", own)


def _apiserver_flags(cluster: Cluster, machine: Machine, leaves: _Leaves) -> dict[str, str]:
    # With every member in the list, cutting off the leader's machine stops requests for up to 11
    # seconds (kubernetes#128812). A master's own member is as close as its disk.
    members = (machine,) if machine.has_etcd else cluster.etcd_members
    return {
        "advertise-address": str(machine.address),
        "bind-address": "0.0.0.0",  # noqa: S104 - clients outside, and the virtual address
        "secure-port": str(ports.API),
        "allow-privileged": "true",
        "anonymous-auth": "false",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": CA,
        "enable-admission-plugins": (
            "NodeRestriction,AlwaysPullImages,EventRateLimit,DenyServiceExternalIPs"
        ),
        "admission-control-config-file": f"{paths.KUBERNETES}/admission.yaml",
        **({} if cluster.certificates.external else {"enable-bootstrap-token-auth": "true"}),
        "encryption-provider-config": f"{paths.KUBERNETES}/encryption.yaml",
        "etcd-cafile": f"{paths.PKI}/etcd/ca.crt",
        "etcd-certfile": leaves.etcd_client.cert_path,
        "etcd-keyfile": leaves.etcd_client.key_path,
        "etcd-servers": ",".join(etcd.client_url(m) for m in members),
        "audit-log-path": "/var/log/kubernetes/audit.log",
        "audit-log-maxage": "30",
        "audit-log-maxbackup": "10",
        "audit-log-maxsize": "100",
        "audit-policy-file": f"{paths.KUBERNETES}/audit-policy.yaml",
        "kubelet-certificate-authority": CA,
        "kubelet-client-certificate": leaves.kubelet_client.cert_path,
        "kubelet-client-key": leaves.kubelet_client.key_path,
        "kubelet-preferred-address-types": "InternalIP,Hostname",
        "profiling": "false",
        "proxy-client-cert-file": leaves.front_proxy.cert_path,
        "proxy-client-key-file": leaves.front_proxy.key_path,
        "requestheader-allowed-names": leaves.front_proxy.common_name,
        "requestheader-client-ca-file": f"{paths.PKI}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "service-account-extend-token-expiration": "false",
        "service-account-issuer": issuer(cluster),
        "service-account-key-file": f"{paths.PKI}/sa.pub",
        "service-account-lookup": "true",
        "service-account-signing-key-file": f"{paths.PKI}/sa.key",
        "service-cluster-ip-range": str(cluster.networks.services),
        # Measured in a rolling restart under 10 requests per second: without this flag one request
        # failed, with it none.
        "shutdown-delay-duration": "4s",
        # Without these two flags, a stop waits a minute for watches, also for those of the
        # apiserver's own controllers. A restart takes 66 s without the flags, and 8 s with them.
        "shutdown-send-retry-after": "true",
        "shutdown-watch-termination-grace-period": "2s",
        "tls-cert-file": leaves.serving.cert_path,
        "tls-private-key-file": leaves.serving.key_path,
        "tls-min-version": "VersionTLS12",
        "tls-cipher-suites": ",".join(CIPHER_SUITES),
    }


def _apiserver_reads(cluster: Cluster, trust: Trust, unit: HostFile) -> tuple[HostFile, ...]:
    """Give the files that the apiserver reads when it starts."""
    return (
        HostFile(
            f"{paths.KUBERNETES}/encryption.yaml",
            render("kube-apiserver/encryption.yaml.j2", keys=trust.encryption_keys),
            secret=True,
        ),
        HostFile(
            f"{paths.KUBERNETES}/admission.yaml",
            render(
                "kube-apiserver/admission.yaml.j2",
                enforce=cluster.pod_security.enforce,
                warn=cluster.pod_security.warn,
                exempt=(*OWN_NAMESPACES, *cluster.pod_security.exempt),
            ),
        ),
        HostFile(
            f"{paths.KUBERNETES}/audit-policy.yaml", render("kube-apiserver/audit-policy.yaml.j2")
        ),
        *_trust_files(trust, "etcd/ca.crt", "front-proxy-ca.crt", "sa.pub", "sa.key"),
        unit,
    )


def _admin_config(cluster: Cluster, admin: Leaf) -> HostFile:
    return HostFile(
        ADMIN,
        kubeconfig.by_files(
            server=f"https://127.0.0.1:{ports.API_PROXY}",
            ca_path=CA,
            cert_path=admin.cert_path,
            key_path=admin.key_path,
            user=admin.common_name,
            cluster_name=cluster.name,
        ),
    )


def _escrow(cluster: Cluster, trust: Trust) -> tuple[HostFile, ...]:
    """Give the keys that every master keeps, so that each master can give them to a new one."""
    return _trust_files(
        trust,
        "ca.key",
        *(() if cluster.certificates.external else ("signing-ca.crt",)),
        "etcd/ca.key",
        "front-proxy-ca.key",
        "encryption.key",
        "network.key",
        "trust.json",
    )


def _apiserver(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    leaves = _Leaves(cluster, machine)
    unit = _unit("kube-apiserver", _apiserver_flags(cluster, machine, leaves), cluster, facts)
    read = _apiserver_reads(cluster, trust, unit)
    # The apiserver reads these again when they change, but not its authorities and keys.
    rereads = (leaves.serving, leaves.kubelet_client, leaves.etcd_client, leaves.front_proxy)
    return ComponentState(
        name="kube-apiserver",
        directories=(
            Directory(f"{paths.PKI}/etcd"),
            Directory("/var/log/kubernetes", mode=0o700),
        ),
        binaries=(
            Binary("kubernetes/kube-apiserver", f"{paths.BIN}/kube-apiserver"),
            Binary("kubernetes/kubectl", f"{paths.BIN}/kubectl"),
        ),
        leaves=(*rereads, leaves.admin),
        files=(*read, _admin_config(cluster, leaves.admin), *_escrow(cluster, trust)),
        units=(
            Unit(
                "kube-apiserver.service",
                reads=(*(f.path for f in read), CA, f"{paths.BIN}/kube-apiserver"),
                rereads=tuple(leaf.cert_path for leaf in rereads),
            ),
        ),
        health=f"{KUBECTL} --server={OWN_API} --request-timeout=8s get --raw /readyz",
        health_timeout=180,
        leftovers=("/var/log/kubernetes",),
    )


def _controller_manager(
    cluster: Cluster, machine: Machine, trust: Trust, facts: Facts
) -> ComponentState:
    client = table.controller_manager(cluster, machine)
    serving = table.controller_manager_serving(cluster, machine)
    config = f"{paths.KUBERNETES}/controller-manager.conf"
    arguments = {
        "allocate-node-cidrs": "true",
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "client-ca-file": CA,
        "cluster-cidr": str(cluster.networks.pods),
        "cluster-name": cluster.name,
        **({} if cluster.certificates.external else _signing(cluster)),
        "kubeconfig": config,
        "leader-elect": "true",
        "node-cidr-mask-size": str(cluster.networks.node_prefix),
        "profiling": "false",
        "requestheader-client-ca-file": f"{paths.PKI}/front-proxy-ca.crt",
        "root-ca-file": CA,
        "service-account-private-key-file": f"{paths.PKI}/sa.key",
        "service-cluster-ip-range": str(cluster.networks.services),
        "terminated-pod-gc-threshold": "1000",
        "tls-cert-file": serving.cert_path,
        "tls-private-key-file": serving.key_path,
        "tls-min-version": "VersionTLS12",
        "use-service-account-credentials": "true",
    }
    signing = () if cluster.certificates.external else (SIGNING_CA, f"{paths.PKI}/ca.key")
    reads = (CA, *signing, *(f"{paths.PKI}/{name}" for name in ("sa.key", "front-proxy-ca.crt")))
    return _client_of_own_api(
        "kube-controller-manager", config, client, serving, arguments, cluster, facts, reads
    )


def _signing(cluster: Cluster) -> dict[str, str]:
    """Give the flags for signing nodes' certificates, and for the tokens with which nodes join."""
    return {
        "cluster-signing-cert-file": SIGNING_CA,
        "cluster-signing-duration": f"{round(cluster.certificates.leaf_days * 86400)}s",
        "cluster-signing-key-file": f"{paths.PKI}/ca.key",
        "controllers": "*,bootstrapsigner,tokencleaner",
    }


def _scheduler(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    client = table.scheduler(cluster, machine)
    serving = table.scheduler_serving(cluster, machine)
    config = f"{paths.KUBERNETES}/scheduler.conf"
    arguments = {
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "client-ca-file": CA,
        "kubeconfig": config,
        "leader-elect": "true",
        "profiling": "false",
        "requestheader-client-ca-file": f"{paths.PKI}/front-proxy-ca.crt",
        "tls-cert-file": serving.cert_path,
        "tls-private-key-file": serving.key_path,
        "tls-min-version": "VersionTLS12",
    }
    reads = (CA, f"{paths.PKI}/front-proxy-ca.crt")
    return _client_of_own_api(
        "kube-scheduler", config, client, serving, arguments, cluster, facts, reads
    )


_HEALTH_PORTS = {
    "kube-controller-manager": ports.CONTROLLER_MANAGER,
    "kube-scheduler": ports.SCHEDULER,
}


def _client_of_own_api(
    name: str,
    config: str,
    client: Leaf,
    serving: Leaf,
    arguments: dict[str, str],
    cluster: Cluster,
    facts: Facts,
    reads: tuple[str, ...],
) -> ComponentState:
    unit = _unit(name, arguments, cluster, facts)
    extra: Mapping[str, str] = cluster.extra_args.get(name, {})  # type: ignore[call-overload]
    address = extra.get("bind-address", arguments["bind-address"])
    asked = arguments["bind-address"] if address == "0.0.0.0" else address  # noqa: S104
    # The process reads certificates again when they change, but not authorities and keys.
    own = (config, unit.path, f"{paths.BIN}/{name}")
    return ComponentState(
        name=name,
        binaries=(Binary(f"kubernetes/{name}", f"{paths.BIN}/{name}"),),
        leaves=(client, serving),
        files=(
            own_api_config(config, client, cluster),
            unit,
        ),
        units=(
            Unit(
                f"{name}.service",
                reads=(*own, *reads),
                rereads=(client.cert_path, serving.cert_path),
            ),
        ),
        health=(
            f"{KUBECTL} --server=https://{asked}:{_HEALTH_PORTS[name]} --tls-server-name=localhost "
            "--request-timeout=8s get --raw /healthz"
        ),
    )


def own_api_config(path: str, client: Leaf, cluster: Cluster) -> HostFile:
    """Give a kubeconfig for this machine's own apiserver."""
    content = kubeconfig.by_files(
        server=OWN_API,
        ca_path=CA,
        cert_path=client.cert_path,
        key_path=client.key_path,
        user=client.common_name,
        cluster_name=cluster.name,
    )
    return HostFile(path, content)


def _wanted(_: Cluster, machine: Machine) -> bool:
    return machine.is_master


APISERVER = Component(
    "kube-apiserver",
    "the API",
    ComponentPhase.CONTROL_PLANE,
    wanted=_wanted,
    state=_apiserver,
    units=("kube-apiserver.service",),
    ports=(Port(ports.API, "kube-apiserver", allow=(Allow(Who.API_CLIENTS),)),),
    spaces=(
        Space(paths.BIN, 180, runs=True),
        # The audit log: the file in use, and ten older ones of 100 MB.
        Space("/var/log/kubernetes", 100, enough=1100),
    ),
)
CONTROLLER_MANAGER = Component(
    "kube-controller-manager",
    "the controllers",
    ComponentPhase.CONTROL_PLANE,
    wanted=_wanted,
    state=_controller_manager,
    units=("kube-controller-manager.service",),
    ports=(Port(ports.CONTROLLER_MANAGER, "kube-controller-manager", listens=Listens.LOOPBACK),),
    spaces=(Space(paths.BIN, 75, runs=True),),
)
SCHEDULER = Component(
    "kube-scheduler",
    "which node a pod runs on",
    ComponentPhase.CONTROL_PLANE,
    wanted=_wanted,
    state=_scheduler,
    units=("kube-scheduler.service",),
    ports=(Port(ports.SCHEDULER, "kube-scheduler", listens=Listens.LOOPBACK),),
    spaces=(Space(paths.BIN, 75, runs=True),),
)
