"""Paths on a machine, in one module, so that probe, components and teardown agree."""

from __future__ import annotations

BIN = "/usr/local/bin"
SBIN = "/usr/local/sbin"
CNI_BIN = "/opt/cni/bin"
UNITS = "/etc/systemd/system"

CONFIG = "/etc/clusterctl"
KUBERNETES = "/etc/kubernetes"
PKI = "/etc/kubernetes/pki"
MANIFESTS = "/etc/kubernetes/clusterctl"
ETCD = "/etc/etcd"
ETCD_PKI = "/etc/etcd/pki"
ETCD_DATA = "/var/lib/etcd"
KUBELET_DATA = "/var/lib/kubelet"
SYSCTLS = "/etc/sysctl.d/90-clusterctl.conf"
CONTAINERD_DATA = "/var/lib/containerd"

# The record of everything that clusterctl puts on a machine: a file for each component. Its lines
# have tab-separated fields; the first field is the kind:
#   cluster  NAME FINGERPRINT                                    (component "host" only)
#   trust    GENERATION DIGEST                                   (component "kube-apiserver" only)
#   package  NAME                                                not there before clusterctl came
#   user     NAME
#   dir      PATH
#   file     PATH
#   binary   PATH PIN VERSION SHA256 SIZE INODE MTIME CTIME
#   cert     PATH                                                certificate of a leaf
#   key      PATH SHA256                                         its key, as clusterctl wrote it
#   unit     NAME DIGEST
#   images   PIN                                                 in its registry
#   sysctl   PATH BEFORE VALUE                                   (file "kernel" only) value before the first change, and clusterctl's
#   leftover PATH
#   cleanup  SHELL                                               run once the units have stopped
STATE = "/var/lib/clusterctl"
RECORD = "/var/lib/clusterctl/record"
ARTIFACTS = "/var/lib/clusterctl/artifacts"
REGISTRY = "/var/lib/clusterctl/registry"
REGISTRY_STORAGE = "docker/registry/v2"  # below it, as the registry lays it out
BACKUPS = "/var/lib/clusterctl/backups"
# For certificates that an external authority signs: their keys, requests, and the certificates.
REQUESTS = "/var/lib/clusterctl/requests"
# The directory that node_exporter's own documentation uses for its textfile collector.
METRICS = "/var/lib/node_exporter/textfile_collector"
# Exists while a restore is under way. Its line has the snapshot's SHA-256 (`rescue`: there is no
# snapshot yet), the number to add to revisions, and `installs` if machines are installed too.
# Nothing else may start members then: some may have the old data, others the restored data.
RESTORING = "/var/lib/clusterctl/restoring"

# Exists while a command changes the cluster, on each master, and remains if that command fails or is
# killed. Its line says who began it, and when. `up` verifies the cluster and removes it.
UNFINISHED = "/var/lib/clusterctl/unfinished"

# The step that starts a member for the first time makes this EnvironmentFile, and removes it once
# the member is healthy. The unit refuses to start if both this file and a member directory are
# missing.
ETCD_JOIN = "/etc/etcd/join.env"
# Exists once the member has been part of a healthy cluster.
ETCD_FORMED = "/etc/etcd/formed"
# An operator who changes the cluster holds this lock (`provision.desired.lock_programs`). A restart
# of the machine removes it.
LOCK = "/run/clusterctl.lock"

# Suffix of a file that is complete, but not yet renamed to its final path.
NEW = ".clusterctl-new"
