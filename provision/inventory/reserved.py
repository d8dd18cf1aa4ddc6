"""Flags of components and `extra_args`: those that it may not set, and those that replace a setting."""

from __future__ import annotations

_ANONYMOUS = "every client needs a certificate or a token"
_CERTIFICATES = "clusterctl makes, renews and checks certificates"
_MEMBERSHIP = "members join and leave one at a time, so that there is always a quorum"
_NETWORKS = "set cluster['networks']"
_FILE = "clusterctl writes this file"
_ADDRESS = "the inventory gives the machine's address"
_DATA = "clusterctl must recognise a member that has lost its data"
_ENDS = "the program would end at once"
_HEALTH = "clusterctl asks this port for the component's health"

# Component -> flag -> why `extra_args` may not set it.
RESERVED: dict[str, dict[str, str]] = {
    "kube-apiserver": {
        "anonymous-auth": _ANONYMOUS,
        "authentication-config": _ANONYMOUS,
        "authorization-mode": "with Node,RBAC a node cannot read the secrets of other nodes",
        "client-ca-file": _CERTIFICATES,
        "tls-cert-file": _CERTIFICATES,
        "tls-private-key-file": _CERTIFICATES,
        "enable-bootstrap-token-auth": "nodes join with bootstrap tokens",
        "etcd-cafile": _CERTIFICATES,
        "etcd-certfile": _CERTIFICATES,
        "etcd-keyfile": _CERTIFICATES,
        "etcd-servers": "each apiserver uses the member of its own machine, to survive the loss of another one",
        "service-account-key-file": _CERTIFICATES,
        "service-account-signing-key-file": _CERTIFICATES,
        "service-cluster-ip-range": _NETWORKS,
        "secure-port": "the proxies on the nodes use port 6443",
        "advertise-address": _ADDRESS,
        "encryption-provider-config": "Secrets in etcd can be read only with the cluster's own keys",
        "etcd-prefix": "all objects are below this prefix: another prefix would give an empty cluster",
        **dict.fromkeys(("help", "version"), _ENDS),
    },
    "kube-controller-manager": {
        "allocate-node-cidrs": _NETWORKS,
        "cluster-cidr": _NETWORKS,
        "node-cidr-mask-size": _NETWORKS,
        "node-cidr-mask-size-ipv4": _NETWORKS,
        "node-cidr-mask-size-ipv6": _NETWORKS,
        "cidr-allocator-type": _NETWORKS,
        "service-cluster-ip-range": _NETWORKS,
        "cluster-signing-cert-file": _CERTIFICATES,
        "cluster-signing-key-file": _CERTIFICATES,
        "cluster-signing-duration": "set cluster['certificates']['leaf_days']",
        "kubeconfig": _FILE,
        "leader-elect": "only one of the masters may be the leader",
        "root-ca-file": _CERTIFICATES,
        "service-account-private-key-file": _CERTIFICATES,
        "secure-port": _HEALTH,
        **dict.fromkeys(("help", "version"), _ENDS),
    },
    "kube-scheduler": {
        "config": "with a configuration file the scheduler ignores clusterctl's flags",
        "kubeconfig": _FILE,
        "leader-elect": "only one of the masters may be the leader",
        "secure-port": _HEALTH,
        **dict.fromkeys(("help", "version", "write-config-to"), _ENDS),
    },
    "etcd": {
        "client-cert-auth": _ANONYMOUS,
        "peer-client-cert-auth": _ANONYMOUS,
        "trusted-ca-file": _CERTIFICATES,
        "peer-trusted-ca-file": _CERTIFICATES,
        "auto-tls": _CERTIFICATES,
        "cert-file": _CERTIFICATES,
        "key-file": _CERTIFICATES,
        "peer-auto-tls": _CERTIFICATES,
        "peer-cert-file": _CERTIFICATES,
        "peer-key-file": _CERTIFICATES,
        "config-file": "with a configuration file etcd ignores all flags",
        "data-dir": _DATA,
        "wal-dir": _DATA,
        "advertise-client-urls": _ADDRESS,
        "initial-advertise-peer-urls": _ADDRESS,
        "listen-client-urls": _ADDRESS,
        "listen-peer-urls": _ADDRESS,
        **dict.fromkeys(("help", "version"), _ENDS),
        "force-new-cluster": _MEMBERSHIP,
        "initial-cluster": _MEMBERSHIP,
        "initial-cluster-state": _MEMBERSHIP,
        "initial-cluster-token": _MEMBERSHIP,
        "name": _MEMBERSHIP,
    },
    "kubelet": {
        "anonymous-auth": _ANONYMOUS,
        "authorization-mode": "the apiserver decides which clients may use a kubelet",
        "bootstrap-kubeconfig": _FILE,
        "cert-dir": _CERTIFICATES,
        "cgroup-driver": "the kubelet and containerd must use the machine's cgroup driver",
        "client-ca-file": _CERTIFICATES,
        "cluster-dns": _NETWORKS,
        "cluster-domain": _NETWORKS,
        "config": _FILE,
        "container-runtime-endpoint": "clusterctl installs containerd",
        "healthz-bind-address": _HEALTH,
        "healthz-port": _HEALTH,
        "hostname-override": "the Node has the name of its machine",
        "kubeconfig": _FILE,
        "node-ip": _ADDRESS,
        "pod-cidr": _NETWORKS,
        "register-node": "`up` waits until each machine is a Node",
        "root-dir": "clusterctl knows this directory, and `down` removes it",
        "rotate-server-certificates": _CERTIFICATES,
        **dict.fromkeys(("help", "runonce", "version"), _ENDS),
        "node-labels": "set `labels` of a machine or a group",
        "rotate-certificates": _CERTIFICATES,
        "register-with-taints": "set `taints` of a machine or a group",
        "tls-cert-file": _CERTIFICATES,
        "tls-private-key-file": _CERTIFICATES,
    },
    "kube-proxy": {
        "cluster-cidr": _NETWORKS,
        "config": _FILE,
        "hostname-override": "the Node has the name of its machine",
        "healthz-bind-address": _HEALTH,
        "healthz-port": _HEALTH,
        "kubeconfig": _FILE,
        "master": "kube-proxy connects to the apiservers through its node's proxy",
        "metrics-port": "set `metrics-bind-address`",
        **dict.fromkeys(("cleanup", "help", "init-only", "version", "write-config-to"), _ENDS),
        "proxy-mode": "set cluster['networks']['proxy_mode']",
    },
}

# Component -> flag -> the setting that it replaces.
REPLACED: dict[str, dict[str, str]] = {
    "kube-apiserver": {"service-account-issuer": "cluster.networks.domain"},
    "kube-controller-manager": {"controllers": "cluster.certificates.authority"},
    "kube-proxy": {"nodeport-addresses": "cluster.api.vip"},
}
