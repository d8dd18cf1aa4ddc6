"""Where things are on a machine. One place, so that probe, components and teardown agree."""

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
CONTAINERD_DATA = "/var/lib/containerd"

# Everything that we put on a machine is written down here, a file for each component; lines of
# tab-separated fields, first the kind:
#   cluster  NAME FINGERPRINT                                    (component "host" only)
#   trust    GENERATION DIGEST                                   (component "kube-apiserver" only)
#   package  NAME                                                that was not there before us
#   user     NAME
#   dir      PATH
#   file     PATH
#   binary   PATH PIN VERSION SHA256 SIZE INODE MTIME CTIME
#   cert     PATH                                                certificate of a leaf
#   key      PATH SHA256                                         its key, as we wrote it
#   unit     NAME DIGEST
#   images   PIN                                                 in its registry
#   leftover PATH
#   cleanup  SHELL                                               run once the units have stopped
STATE = "/var/lib/clusterctl"
RECORD = "/var/lib/clusterctl/record"
ARTIFACTS = "/var/lib/clusterctl/artifacts"
REGISTRY = "/var/lib/clusterctl/registry"
BACKUPS = "/var/lib/clusterctl/backups"
# Keys of certificates that somebody else is to sign, the requests, and what was signed.
REQUESTS = "/var/lib/clusterctl/requests"
# Where node_exporter's own documentation has its textfile collector look.
METRICS = "/var/lib/node_exporter/textfile_collector"
# A restore is under way: its id and the inventory's command that finishes it. Nothing else may
# start members then: some may have the old data, some the restored ones.
RESTORING = "/var/lib/clusterctl/restoring"

# Made by the step that starts a member for the first time, removed once it is healthy; the unit
# refuses to start with neither this nor a member directory. It is an EnvironmentFile.
ETCD_JOIN = "/etc/etcd/join.env"
# Made once the member has been part of a healthy cluster.
ETCD_FORMED = "/etc/etcd/formed"
# Held while an operator changes the cluster (`provision.desired.lock_programs`); gone after a restart.
LOCK = "/run/clusterctl.lock"

# Ending of a file that is complete and not renamed into its place yet.
NEW = ".clusterctl-new"
