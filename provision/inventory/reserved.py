"""Flags that `extra_args` may not set, component -> flag -> why."""

from __future__ import annotations

_ANONYMOUS = "nobody gets in without a certificate or a token"
_CERTIFICATES = "certificates are made, renewed and checked by clusterctl"
_MEMBERSHIP = "members join and leave one at a time, so that quorum is never at risk"
_NETWORKS = "set cluster['networks']"
_KUBECONFIG = "it is made by clusterctl"

RESERVED: dict[str, dict[str, str]] = {
    "kube-apiserver": {
        "anonymous-auth": _ANONYMOUS,
        "authentication-config": _ANONYMOUS,
        "authorization-mode": "Node,RBAC keeps nodes from each other's secrets",
        "client-ca-file": _CERTIFICATES,
        "tls-cert-file": _CERTIFICATES,
        "tls-private-key-file": _CERTIFICATES,
        "etcd-cafile": _CERTIFICATES,
        "etcd-certfile": _CERTIFICATES,
        "etcd-keyfile": _CERTIFICATES,
        "etcd-servers": "each apiserver uses its own machine's member, to survive another's loss",
        "service-account-key-file": _CERTIFICATES,
        "service-account-signing-key-file": _CERTIFICATES,
        "service-cluster-ip-range": _NETWORKS,
        "secure-port": "the nodes' proxies expect 6443",
        "advertise-address": "it is the machine's address",
    },
    "kube-controller-manager": {
        "allocate-node-cidrs": _NETWORKS,
        "cluster-cidr": _NETWORKS,
        "node-cidr-mask-size": _NETWORKS,
        "service-cluster-ip-range": _NETWORKS,
        "cluster-signing-cert-file": _CERTIFICATES,
        "cluster-signing-key-file": _CERTIFICATES,
        "kubeconfig": _KUBECONFIG,
        "leader-elect": "one of several must lead",
        "root-ca-file": _CERTIFICATES,
        "service-account-private-key-file": _CERTIFICATES,
    },
    "kube-scheduler": {
        "kubeconfig": _KUBECONFIG,
        "leader-elect": "one of several must lead",
    },
    "etcd": {
        "client-cert-auth": _ANONYMOUS,
        "peer-client-cert-auth": _ANONYMOUS,
        "trusted-ca-file": _CERTIFICATES,
        "peer-trusted-ca-file": _CERTIFICATES,
        "data-dir": "a wiped member must be told from a new one",
        "force-new-cluster": _MEMBERSHIP,
        "initial-cluster": _MEMBERSHIP,
        "initial-cluster-state": _MEMBERSHIP,
        "initial-cluster-token": _MEMBERSHIP,
        "name": _MEMBERSHIP,
    },
    "kubelet": {
        "anonymous-auth": _ANONYMOUS,
        "authorization-mode": "the apiserver decides who may reach a kubelet",
        "bootstrap-kubeconfig": _KUBECONFIG,
        "client-ca-file": _CERTIFICATES,
        "cluster-dns": _NETWORKS,
        "cluster-domain": _NETWORKS,
        "config": "its file is made by clusterctl",
        "container-runtime-endpoint": "the runtime is clusterctl's containerd",
        "hostname-override": "the hostname is the Node's name",
        "kubeconfig": _KUBECONFIG,
        "node-labels": "set labels, of a machine or a group",
        "register-with-taints": "set taints, of a machine or a group",
        "tls-cert-file": _CERTIFICATES,
        "tls-private-key-file": _CERTIFICATES,
    },
    "kube-proxy": {
        "cluster-cidr": _NETWORKS,
        "config": "its file is made by clusterctl",
        "hostname-override": "the hostname is the Node's name",
        "kubeconfig": _KUBECONFIG,
        "proxy-mode": "set cluster['networks']['proxy_mode']",
    },
}
