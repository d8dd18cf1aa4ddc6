"""kubelet and kube-proxy, on every node."""

from __future__ import annotations

import yaml

from provision.desired import health, proxy_flags
from provision.desired.components import haproxy
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
from provision.model.cluster import Cluster, Machine, Taint
from provision.model.facts import Facts
from provision.model.settings.network import KUBELET_PODS
from provision.pki import kubeconfig, table
from provision.pki.leaf import Leaf
from provision.pki.trust import Trust

KUBECONFIG = f"{paths.KUBERNETES}/kubelet.conf"
BOOTSTRAP = f"{paths.KUBERNETES}/bootstrap-kubelet.conf"
# CIS's checks look for the kubelet's configuration file under this name.
CONFIG = f"{paths.KUBELET_DATA}/config.yaml"
PROXY = "kube-proxy.service"
PROXY_TABLE = "ip kube-proxy"  # in the mode nftables
PROXY_CONFIG = "/var/lib/kube-proxy/config.yaml"

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
NO_TARGET = "node.kubernetes.io/exclude-from-external-load-balancers"
WORKER = "node-role.kubernetes.io/worker"


def taints(cluster: Cluster, machine: Machine) -> tuple[Taint, ...]:
    """Give the Node's taints: those of the inventory, and the taint that reserves masters."""
    reserved = machine.is_master and machine not in cluster.workers
    if reserved and not cluster.masters_schedulable:
        return (Taint(key=CONTROL_PLANE), *machine.taints)
    return machine.taints


def labels(cluster: Cluster, machine: Machine) -> dict[str, str]:
    """Give the Node's labels. A kubelet may not set its own roles, so clusterctl sets them."""
    roles = {}
    if machine.is_master:
        roles[CONTROL_PLANE] = ""
    if cluster.source.has_cloud_controller and Taint(key=CONTROL_PLANE) in taints(cluster, machine):
        roles[NO_TARGET] = ""
    if machine in cluster.workers:
        roles[WORKER] = ""
    return {**machine.labels, **roles}


# Where iptables is installed, the kubelet makes chains for other programs (`syncIPTablesRules` in its
# source), and iptables makes tables for them. The program also deletes a table that has only
# iptables' own chains, if these are empty: iptables makes the table again when needed.
IPTABLES_CLEANUP = (
    "for c in INPUT OUTPUT; do iptables -w -D $c -j KUBE-FIREWALL; done; "
    "for i in iptables ip6tables; do "
    "for c in filter/KUBE-FIREWALL mangle/KUBE-IPTABLES-HINT "
    "mangle/KUBE-KUBELET-CANARY nat/KUBE-KUBELET-CANARY filter/KUBE-KUBELET-CANARY; do "
    "$i -w -t ${c%/*} -F ${c#*/}; $i -w -t ${c%/*} -X ${c#*/}; done; done; "
    "for t in mangle nat filter; do for f in ip ip6; do "
    "nft list table $f $t | grep -Evxq '#.*|table .*|[[:space:]]*(chain (INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING) "
    "\\{|type .* policy accept;|\\}|)' || nft delete table $f $t; done; done"
)

# containerd has stopped, but its shims still run: kill them and the processes that they started.
_CLEANUP = (
    "for p in /proc/[0-9]*; do case $(readlink $p/exe) in "
    f"{paths.BIN}/containerd-shim-runc-v2*) "
    "kill -9 $(cat $p/task/*/children) ${p#/proc/} ;; esac; done; "
    "for n in /run/netns/cni-*; do umount -l $n; rm -f $n; done; "
    "for m in $(awk '$2 ~ \"^/var/lib/kubelet/(pods|plugins)/\" {print $2}' /proc/mounts "
    "| sort -r); do umount -l $m || true; done; "
    # The systemd driver's slices. With cgroupfs there is no such unit.
    "timeout 60 systemctl stop kubepods.slice; "
    f"{IPTABLES_CLEANUP}"
)


def _kubelet_config(
    cluster: Cluster, machine: Machine, facts: Facts, serving: Leaf, *, asks: bool
) -> HostFile:
    return HostFile(
        CONFIG,
        render(
            "kubelet/config.yaml.j2",
            ca=f"{paths.PKI}/ca.crt",
            cgroup_version=facts.cgroup_version,
            container=facts.container,
            may_raise_limits=facts.may_raise_limits,
            dns=cluster.networks.dns_service,
            domain=cluster.networks.domain,
            resolv_conf=facts.resolv_conf,
            cert=serving.cert_path,
            key=serving.key_path,
            cipher_suites=CIPHER_SUITES,
            taints=taints(cluster, machine),
            asks=asks,
            max_pods=_max_pods(cluster),
        ),
    )


def _max_pods(cluster: Cluster) -> int:
    """Give the kubelet's limit of pods; 0: its default. A pod without an address would not start."""
    networks = cluster.networks
    fits = networks.plugin == "custom" or networks.pods_of_a_node >= KUBELET_PODS
    return 0 if fits else networks.pods_of_a_node


def _kubelet_unit(cluster: Cluster, machine: Machine, facts: Facts, *, asks: bool) -> HostFile:
    arguments = {
        **({"bootstrap-kubeconfig": BOOTSTRAP} if asks else {}),
        "cert-dir": f"{paths.KUBELET_DATA}/pki",
        "config": CONFIG,
        "kubeconfig": KUBECONFIG,
        "node-ip": str(machine.address),
    }
    return HostFile(
        f"{paths.UNITS}/kubelet.service",
        render(
            "kubelet/kubelet.service.j2",
            bin=paths.BIN,
            may_raise_limits=facts.may_raise_limits,
            flags=flags(arguments, cluster.extra_args.get("kubelet", {})),
        ),
    )


def _kubelet_access(cluster: Cluster, client: Leaf) -> HostFile:
    return HostFile(
        KUBECONFIG,
        kubeconfig.by_files(
            server=haproxy.API,
            ca_path=f"{paths.PKI}/ca.crt",
            cert_path=client.cert_path,
            key_path=client.key_path,
            user=client.common_name,
            cluster_name=cluster.name,
        ),
    )


def _kubelet(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    serving = table.kubelet_serving(cluster, machine)
    client = table.kubelet_client(cluster, machine)
    # Under an external authority a kubelet does not request certificates: clusterctl installs them.
    asks = not cluster.certificates.external
    config = _kubelet_config(cluster, machine, facts, serving, asks=asks)
    unit = _kubelet_unit(cluster, machine, facts, asks=asks)
    access = _kubelet_access(cluster, client)
    registered = f"test -s {client.cert_path} && " if asks else ""
    return ComponentState(
        name="kubelet",
        directories=(
            Directory(paths.KUBELET_DATA, mode=0o700),
            Directory(f"{paths.KUBELET_DATA}/pki", mode=0o700),
        ),
        binaries=(Binary("kubernetes/kubelet", f"{paths.BIN}/kubelet"),),
        leaves=(serving,) if asks else (serving, client),
        files=(config, unit) if asks else (config, unit, access),
        # The kubelet reads its serving certificate again when the file changes
        # (ReloadKubeletServerCertificateFile).
        units=(
            Unit(
                "kubelet.service",
                reads=(
                    *(config.path, unit.path, f"{paths.BIN}/kubelet", f"{paths.PKI}/ca.crt"),
                    *(() if asks else (access.path, client.cert_path)),
                ),
                rereads=(serving.cert_path,),
            ),
        ),
        # Once the kubelet has registered, its one-time token is no longer needed.
        health=f"{registered}{health.http(ports.KUBELET_HEALTH, '/healthz')} && rm -f {BOOTSTRAP}",
        leftovers=(
            paths.KUBELET_DATA,
            KUBECONFIG,
            BOOTSTRAP,
            "/var/log/pods",
            "/var/log/containers",
        ),
        cleanup=_CLEANUP,
    )


def _kube_proxy_config(cluster: Cluster, machine: Machine, facts: Facts) -> HostFile:
    mode = cluster.networks.proxy_mode
    config = render(
        "kube-proxy/config.yaml.j2",
        kubeconfig=KUBECONFIG,
        pods=cluster.networks.pods,
        container=facts.container,
        may_raise_limits=facts.may_raise_limits,
        health=ports.KUBE_PROXY_HEALTH,
        metrics=ports.KUBE_PROXY_METRICS,
        mode=mode,
        # In the mode nftables kube-proxy looks up the machine's addresses once an hour only, unless
        # it serves all of them. The virtual address moves.
        every_address=mode == "nftables" and machine.is_master and cluster.api.vip is not None,
    )
    if extra := proxy_flags.FLAGS & cluster.extra_args.get("kube-proxy", {}).keys():
        values = {flag: cluster.extra_args["kube-proxy"][flag] for flag in sorted(extra)}
        merged = proxy_flags.merge(yaml.safe_load(config), mode, values)
        config = f"# Written by clusterctl.\n{yaml.safe_dump(merged)}".encode()
    return HostFile(PROXY_CONFIG, config)


def _kube_proxy(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    extra = cluster.extra_args.get("kube-proxy", {})
    logging = {flag: extra[flag] for flag in extra.keys() & proxy_flags.LOGGING}
    return ComponentState(
        name="kube-proxy",
        directories=(Directory("/var/lib/kube-proxy", mode=0o700),),
        binaries=(Binary("kubernetes/kube-proxy", f"{paths.BIN}/kube-proxy"),),
        files=(
            _kube_proxy_config(cluster, machine, facts),
            HostFile(
                f"{paths.UNITS}/{PROXY}",
                render(
                    "kube-proxy/kube-proxy.service.j2",
                    bin=paths.BIN,
                    kubeconfig=KUBECONFIG,
                    flags=flags({"config": PROXY_CONFIG}, logging),
                ),
            ),
        ),
        units=(Unit(PROXY, also=(f"{paths.PKI}/ca.crt",)),),
        # Unlike /healthz, it does not fail on a Node that is about to be deleted.
        health=health.http(ports.KUBE_PROXY_HEALTH, "/livez"),
        leftovers=("/var/lib/kube-proxy",),
        cleanup=(
            f"{paths.BIN}/kube-proxy --cleanup; "
            f"nft delete table {PROXY_TABLE}; nft delete table ip6 kube-proxy"
        ),
    )


KUBELET = Component(
    "kubelet",
    "the node agent",
    ComponentPhase.NODES,
    wanted=lambda _, machine: machine.is_node,
    state=_kubelet,
    units=("kubelet.service",),
    ports=(
        Port(
            ports.KUBELET,
            "kubelet",
            # Connections from pods of other nodes have their node's address.
            allow=(Allow(Who.MACHINES), Allow(Who.OWN_PODS, "from this node's own pods")),
        ),
        Port(ports.KUBELET_HEALTH, "kubelet", listens=Listens.LOOPBACK),
    ),
    spaces=(
        Space(paths.BIN, 90, runs=True),
        # Volumes of pods: programs in them run from here.
        Space(paths.KUBELET_DATA, 20, enough=1000, runs=True),
        Space("/var/log/pods", 50),
    ),
)
# A program that takes kube-proxy's place answers on the same ports.
_SERVICES = (Allow(Who.SERVICE_CLIENTS),)
KUBE_PROXY = Component(
    "kube-proxy",
    "Services on this node",
    ComponentPhase.NODES,
    wanted=lambda cluster, machine: machine.is_node and cluster.networks.proxy_mode != "none",
    state=_kube_proxy,
    units=(PROXY,),
    ports=(
        Port(
            ports.KUBE_PROXY_HEALTH,
            "kube-proxy's health",
            allow=_SERVICES,
            on=lambda machine: machine.is_node,
        ),
        Port(
            30000,
            "health of Services' nodes",
            last=32767,
            allow=_SERVICES,
            listens=Listens.NOWHERE,
            on=lambda machine: machine.is_node,
        ),
        Port(ports.KUBE_PROXY_METRICS, "kube-proxy", listens=Listens.LOOPBACK),
    ),
    spaces=(Space(paths.BIN, 60, runs=True),),
)

__all__ = ["KUBELET", "KUBE_PROXY", "labels", "taints"]
