"""Ports that the machines listen on: at `0.0.0.0` unless the comment names another address."""

from __future__ import annotations

API = 6443
ETCD_CLIENT = 2379
ETCD_PEER = 2380
ETCD_METRICS = 2381  # loopback
KUBELET = 10250
CONTROLLER_MANAGER = 10257  # loopback
CLOUD_CONTROLLER_MANAGER = 10258  # loopback
SCHEDULER = 10259  # loopback
KUBELET_HEALTH = 10248  # loopback
KUBE_PROXY_HEALTH = 10256
KUBE_PROXY_METRICS = 10249  # loopback
REGISTRY = 5000  # the masters' own address
API_PROXY = 7443  # loopback of every node: HAProxy to all apiservers
REGISTRY_PROXY = 5000  # loopback of every node: HAProxy to all registries
API_MONITOR = 7480  # masters: 200 while the machine's own apiserver is ready
ARTIFACTS = 7490  # the seed machine, only while artifacts are copied
ETCD_SCRATCH = 12379  # loopback: a temporary etcd, while a snapshot is tested or rescued
ETCD_SCRATCH_PEER = 12380  # loopback, the same
