"""The checks, as data: the 65 that CIS 1.12 scores and the 27 others that a machine can answer.

The words are ours. Where the benchmark accepts that a flag is not set, what is judged here is the
default that then holds. Numbers and limits are those that kube-bench 0.15.6 (cfg/cis-1.12) tests.
"""

from __future__ import annotations

from provision.commands.audit.model import (
    AtLeast,
    Check,
    Files,
    Has,
    HasNot,
    Is,
    IsNotSet,
    IsSet,
    NotZero,
    Only,
    Place,
    Rule,
    Setting,
    StartsWith,
)
from provision.model import paths

_ROOT = "root:root"
_API = "kube-apiserver"
_MANAGER = "kube-controller-manager"
_SCHEDULER = "kube-scheduler"

# TLS 1.2 with forward secrecy and authenticated encryption. 1.2.29 also lists the names that Go
# gives ChaCha20 today, and those of TLS 1.3.
_KUBELET_CIPHERS = tuple(
    f"TLS_ECDHE_{key}_WITH_{cipher}"
    for key in ("ECDSA", "RSA")
    for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305")
)
_API_CIPHERS = (
    *_KUBELET_CIPHERS,
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)


def _unit(name: str) -> tuple[str, ...]:
    """A unit's file and its drop-ins: what the pod specification is to a static pod."""
    return (f"{paths.UNITS}/{name}.service", f"{paths.UNITS}/{name}.service.d/**")


def _mode(mode: int, *patterns: str, optional: bool = False) -> tuple[Files]:
    return (Files(patterns, mode=mode, optional=optional),)


def _owner(owner: str, *patterns: str, optional: bool = False) -> tuple[Files]:
    return (Files(patterns, owner=owner, optional=optional),)


def _flags(
    process: str, rule: Rule, *flags: str, default: str | None = None
) -> tuple[Setting, ...]:
    return tuple(Setting(process, flag, rule, default=default) for flag in flags)


def _kubelet(flag: str, field: str, rule: Rule, default: str | None = None) -> tuple[Setting]:
    return (Setting("kubelet", flag, rule, field, default),)


_UNITS_CLOSED = "Its unit, where all its flags are, is written 0600 and owned by root."
_CONFS_CLOSED = "Written 0600, owned by root; it names key files and holds no key."
_OWN_AUTHORITY = "etcd has an authority of its own; the Kubernetes authority opens nothing there."

CHECKS: tuple[Check, ...] = (
    # 1.1 Files of the control plane
    Check(
        "1.1.1",
        Place.MASTERS,
        "Only root reads or writes what starts the apiserver",
        _mode(0o600, *_unit(_API)),
        _UNITS_CLOSED,
    ),
    Check(
        "1.1.2",
        Place.MASTERS,
        "What starts the apiserver belongs to root",
        _owner(_ROOT, *_unit(_API)),
        _UNITS_CLOSED,
    ),
    Check(
        "1.1.3",
        Place.MASTERS,
        "Only root reads or writes what starts the controller manager",
        _mode(0o600, *_unit(_MANAGER)),
        _UNITS_CLOSED,
    ),
    Check(
        "1.1.4",
        Place.MASTERS,
        "What starts the controller manager belongs to root",
        _owner(_ROOT, *_unit(_MANAGER)),
        _UNITS_CLOSED,
    ),
    Check(
        "1.1.5",
        Place.MASTERS,
        "Only root reads or writes what starts the scheduler",
        _mode(0o600, *_unit(_SCHEDULER)),
        _UNITS_CLOSED,
    ),
    Check(
        "1.1.6",
        Place.MASTERS,
        "What starts the scheduler belongs to root",
        _owner(_ROOT, *_unit(_SCHEDULER)),
        _UNITS_CLOSED,
    ),
    Check(
        "1.1.7",
        Place.MEMBERS,
        "Only root reads or writes what starts etcd",
        _mode(0o600, *_unit("etcd")),
        _UNITS_CLOSED,
    ),
    Check(
        "1.1.8",
        Place.MEMBERS,
        "What starts etcd belongs to root",
        _owner(_ROOT, *_unit("etcd")),
        _UNITS_CLOSED,
    ),
    Check(
        "1.1.9",
        Place.NODES,
        "Only root reads or writes the files of the pod network",
        _mode(0o600, "/etc/cni/net.d/**", "/var/lib/cni/networks/**", optional=True),
        "clusterctl-pod-cidr closes the file that containerd writes; host-local's lock, which it would "
        "make 0750, is there before it.",
        scored=False,
    ),
    Check(
        "1.1.10",
        Place.NODES,
        "The files of the pod network belong to root",
        _owner(_ROOT, "/etc/cni/net.d/**", "/var/lib/cni/networks/**", optional=True),
        "containerd and the plug-ins that write them run as root.",
        scored=False,
    ),
    Check(
        "1.1.11",
        Place.MEMBERS,
        "Only etcd looks into etcd's data",
        _mode(0o700, "{etcd --data-dir}"),
        f"{paths.ETCD_DATA} is made 0700.",
    ),
    Check(
        "1.1.12",
        Place.MEMBERS,
        "etcd's data belong to a user of its own",
        _owner("etcd:etcd", "{etcd --data-dir}"),
        "etcd runs as the user etcd; its keys are in /etc/etcd/pki, apart from those of root.",
    ),
    Check(
        "1.1.13",
        Place.MASTERS,
        "Only root reads or writes the administrator's kubeconfig",
        (
            *_mode(0o600, f"{paths.KUBERNETES}/admin.conf"),
            *_mode(0o600, f"{paths.KUBERNETES}/super-admin.conf", optional=True),
        ),
        _CONFS_CLOSED + " Break-glass: people get kubeconfigs of hours instead.",
    ),
    Check(
        "1.1.14",
        Place.MASTERS,
        "The administrator's kubeconfig belongs to root",
        (
            *_owner(_ROOT, f"{paths.KUBERNETES}/admin.conf"),
            *_owner(_ROOT, f"{paths.KUBERNETES}/super-admin.conf", optional=True),
        ),
        _CONFS_CLOSED,
    ),
    Check(
        "1.1.15",
        Place.MASTERS,
        "Only root reads or writes the scheduler's kubeconfig",
        _mode(0o600, f"{{{_SCHEDULER} --kubeconfig}}"),
        _CONFS_CLOSED,
    ),
    Check(
        "1.1.16",
        Place.MASTERS,
        "The scheduler's kubeconfig belongs to root",
        _owner(_ROOT, f"{{{_SCHEDULER} --kubeconfig}}"),
        _CONFS_CLOSED,
    ),
    Check(
        "1.1.17",
        Place.MASTERS,
        "Only root reads or writes the controller manager's kubeconfig",
        _mode(0o600, f"{{{_MANAGER} --kubeconfig}}"),
        _CONFS_CLOSED,
    ),
    Check(
        "1.1.18",
        Place.MASTERS,
        "The controller manager's kubeconfig belongs to root",
        _owner(_ROOT, f"{{{_MANAGER} --kubeconfig}}"),
        _CONFS_CLOSED,
    ),
    Check(
        "1.1.19",
        Place.MASTERS,
        "The directory of keys and certificates, and all in it, belong to root",
        _owner(_ROOT, f"{paths.PKI}/**/"),
        "Everything there is root's; etcd's own pairs are elsewhere.",
    ),
    Check(
        "1.1.20",
        Place.MASTERS,
        "Nobody but root writes certificates",
        _mode(0o644, f"{paths.PKI}/**/*.crt"),
        "Certificates are written 0644.",
        scored=False,
    ),
    Check(
        "1.1.21",
        Place.MASTERS,
        "Nobody but root reads or writes keys",
        _mode(0o600, f"{paths.PKI}/**/*.key"),
        "Keys are 0600 from their first moment; one that was ever open to others is made anew.",
        scored=False,
    ),
    # 1.2 The apiserver
    Check(
        "1.2.1",
        Place.MASTERS,
        "Nobody asks the apiserver without saying who they are",
        _flags(_API, Is("false"), "anonymous-auth", default="true"),
        "Off. HAProxy asks for /readyz with a client certificate; load balancers and keepalived, "
        "which have none, ask HAProxy's monitor port.",
        scored=False,
    ),
    Check(
        "1.2.2",
        Place.MASTERS,
        "No tokens in a file, which never expire",
        _flags(_API, IsNotSet(), "token-auth-file"),
        "Not set.",
    ),
    Check(
        "1.2.3",
        Place.MASTERS,
        "Services cannot claim addresses outside the cluster",
        _flags(_API, Has("DenyServiceExternalIPs"), "enable-admission-plugins"),
        "The plug-in is on.",
        scored=False,
    ),
    Check(
        "1.2.4",
        Place.MASTERS,
        "The apiserver shows kubelets a certificate",
        _flags(_API, IsSet(), "kubelet-client-certificate", "kubelet-client-key"),
        "One of its own, on each master; RBAC gives it the kubelets' API and nothing else.",
    ),
    Check(
        "1.2.5",
        Place.MASTERS,
        "The apiserver verifies the kubelets it talks to",
        _flags(_API, IsSet(), "kubelet-certificate-authority"),
        "Kubelets' serving certificates are signed by the cluster's authority.",
    ),
    Check(
        "1.2.6",
        Place.MASTERS,
        "Not every request is allowed",
        _flags(_API, HasNot("AlwaysAllow"), "authorization-mode", default="AlwaysAllow"),
        "Node,RBAC.",
    ),
    Check(
        "1.2.7",
        Place.MASTERS,
        "A kubelet reads only what its own pods need",
        _flags(_API, Has("Node"), "authorization-mode"),
        "Node,RBAC.",
    ),
    Check(
        "1.2.8",
        Place.MASTERS,
        "Rights come from roles",
        _flags(_API, Has("RBAC"), "authorization-mode"),
        "Node,RBAC.",
    ),
    Check(
        "1.2.9",
        Place.MASTERS,
        "Nobody can flood the API with events",
        _flags(_API, Has("EventRateLimit"), "enable-admission-plugins"),
        "The plug-in is on, with limits in /etc/kubernetes/admission.yaml.",
        scored=False,
    ),
    Check(
        "1.2.10",
        Place.MASTERS,
        "No plug-in admits everything",
        _flags(_API, HasNot("AlwaysAdmit"), "enable-admission-plugins"),
        "Not on.",
    ),
    Check(
        "1.2.11",
        Place.MASTERS,
        "A private image on a node is not open to every pod there",
        _flags(_API, Has("AlwaysPullImages"), "enable-admission-plugins"),
        "The plug-in is on; registries on the masters make it work without the outside.",
        scored=False,
    ),
    Check(
        "1.2.12",
        Place.MASTERS,
        "Pods run under a service account",
        _flags(_API, HasNot("ServiceAccount"), "disable-admission-plugins"),
        "The plug-in is not disabled.",
    ),
    Check(
        "1.2.13",
        Place.MASTERS,
        "Nothing is made in a namespace that is going",
        _flags(_API, HasNot("NamespaceLifecycle"), "disable-admission-plugins"),
        "The plug-in is not disabled.",
    ),
    Check(
        "1.2.14",
        Place.MASTERS,
        "A kubelet changes only its own Node and its own pods",
        _flags(_API, Has("NodeRestriction"), "enable-admission-plugins"),
        "The plug-in is on.",
    ),
    Check(
        "1.2.15",
        Place.MASTERS,
        "The apiserver does not let itself be profiled",
        _flags(_API, Is("false"), "profiling", default="true"),
        "Off.",
    ),
    Check(
        "1.2.16",
        Place.MASTERS,
        "There is an audit log",
        _flags(_API, IsSet(), "audit-log-path"),
        "/var/log/kubernetes/audit.log, 0700 the directory, from the first request on.",
    ),
    Check(
        "1.2.17",
        Place.MASTERS,
        "The audit log is kept for 30 days",
        _flags(_API, AtLeast(30), "audit-log-maxage"),
        "30 days.",
    ),
    Check(
        "1.2.18",
        Place.MASTERS,
        "Ten old audit logs are kept",
        _flags(_API, AtLeast(10), "audit-log-maxbackup"),
        "10.",
    ),
    Check(
        "1.2.19",
        Place.MASTERS,
        "An audit log grows to 100 MB before the next",
        _flags(_API, AtLeast(100), "audit-log-maxsize"),
        "100 MB.",
    ),
    Check(
        "1.2.21",
        Place.MASTERS,
        "The token of a deleted service account is worth nothing",
        _flags(_API, Is("true"), "service-account-lookup", default="true"),
        "On.",
    ),
    Check(
        "1.2.22",
        Place.MASTERS,
        "Tokens are verified with a key made for that",
        _flags(_API, IsSet(), "service-account-key-file"),
        "A key pair of its own, made with the cluster.",
    ),
    Check(
        "1.2.23",
        Place.MASTERS,
        "The apiserver shows etcd a certificate",
        _flags(_API, IsSet(), "etcd-certfile", "etcd-keyfile"),
        _OWN_AUTHORITY,
    ),
    Check(
        "1.2.24",
        Place.MASTERS,
        "The API is served under a certificate of the cluster's",
        _flags(_API, IsSet(), "tls-cert-file", "tls-private-key-file"),
        "One for each master, with every name and address that it is reached by.",
    ),
    Check(
        "1.2.25",
        Place.MASTERS,
        "Client certificates are verified",
        _flags(_API, IsSet(), "client-ca-file"),
        "Against the cluster's authority.",
    ),
    Check(
        "1.2.26",
        Place.MASTERS,
        "The apiserver verifies the etcd it talks to",
        _flags(_API, IsSet(), "etcd-cafile"),
        _OWN_AUTHORITY,
    ),
    Check(
        "1.2.27",
        Place.MASTERS,
        "What is stored can be encrypted",
        _flags(_API, IsSet(), "encryption-provider-config"),
        "/etc/kubernetes/encryption.yaml, with the same key on every master.",
        scored=False,
    ),
    Check(
        "1.2.28",
        Place.MASTERS,
        "Secrets are stored encrypted, by a strong cipher",
        (Setting("encryption", "provider", Only(("aescbc", "kms", "secretbox"))),),
        "secretbox (XSalsa20 and Poly1305) writes; what lay there before can still be read.",
        scored=False,
    ),
    Check(
        "1.2.29",
        Place.MASTERS,
        "The apiserver speaks strong ciphers only",
        _flags(_API, Only(_API_CIPHERS), "tls-cipher-suites"),
        "TLS 1.2 and newer; ECDHE with AES-GCM, and the suites of TLS 1.3.",
        scored=False,
    ),
    Check(
        "1.2.30",
        Place.MASTERS,
        "Tokens of pods live for as long as they say",
        _flags(_API, Is("false"), "service-account-extend-token-expiration", default="true"),
        "Not extended to a year.",
    ),
    # 1.3 The controller manager
    Check(
        "1.3.1",
        Place.MASTERS,
        "Ended pods are cleaned up before they fill the store",
        _flags(_MANAGER, IsSet(), "terminated-pod-gc-threshold"),
        "At 1000.",
        scored=False,
    ),
    Check(
        "1.3.2",
        Place.MASTERS,
        "The controller manager does not let itself be profiled",
        _flags(_MANAGER, Is("false"), "profiling", default="true"),
        "Off.",
    ),
    Check(
        "1.3.3",
        Place.MASTERS,
        "Each controller has rights of its own",
        _flags(_MANAGER, Is("true"), "use-service-account-credentials", default="false"),
        "On.",
    ),
    Check(
        "1.3.4",
        Place.MASTERS,
        "Tokens are signed with a key made for that",
        _flags(_MANAGER, IsSet(), "service-account-private-key-file"),
        "A key pair of its own, made with the cluster.",
    ),
    Check(
        "1.3.5",
        Place.MASTERS,
        "Pods are given the authority to verify the API by",
        _flags(_MANAGER, IsSet(), "root-ca-file"),
        "The cluster's authority.",
    ),
    Check(
        "1.3.6",
        Place.MASTERS,
        "Kubelets' serving certificates can be renewed",
        _flags(_MANAGER, HasNot("RotateKubeletServerCertificate=false"), "feature-gates"),
        "The feature is not turned off.",
    ),
    Check(
        "1.3.7",
        Place.MASTERS,
        "The controller manager listens on its loopback only",
        _flags(_MANAGER, Is("127.0.0.1"), "bind-address", default="0.0.0.0"),  # noqa: S104
        "127.0.0.1.",
    ),
    # 1.4 The scheduler
    Check(
        "1.4.1",
        Place.MASTERS,
        "The scheduler does not let itself be profiled",
        _flags(_SCHEDULER, Is("false"), "profiling", default="true"),
        "Off.",
    ),
    Check(
        "1.4.2",
        Place.MASTERS,
        "The scheduler listens on its loopback only",
        _flags(_SCHEDULER, Is("127.0.0.1"), "bind-address", default="0.0.0.0"),  # noqa: S104
        "127.0.0.1.",
    ),
    # 2 etcd
    Check(
        "2.1",
        Place.MEMBERS,
        "etcd is served under a certificate",
        _flags("etcd", IsSet(), "cert-file", "key-file"),
        "One for each member, by etcd's own authority.",
    ),
    Check(
        "2.2",
        Place.MEMBERS,
        "etcd asks its clients for a certificate",
        _flags("etcd", Is("true"), "client-cert-auth", default="false"),
        "On.",
    ),
    Check(
        "2.3",
        Place.MEMBERS,
        "etcd does not sign its own certificate for clients",
        _flags("etcd", Is("false"), "auto-tls", default="false"),
        "Off.",
    ),
    Check(
        "2.4",
        Place.MEMBERS,
        "Members show each other certificates",
        _flags("etcd", IsSet(), "peer-cert-file", "peer-key-file"),
        "One for each member, with its address.",
    ),
    Check(
        "2.5",
        Place.MEMBERS,
        "Members verify each other",
        _flags("etcd", Is("true"), "peer-client-cert-auth", default="false"),
        "On.",
    ),
    Check(
        "2.6",
        Place.MEMBERS,
        "Members do not sign their own certificates",
        _flags("etcd", Is("false"), "peer-auto-tls", default="false"),
        "Off.",
    ),
    Check(
        "2.7",
        Place.MEMBERS,
        "etcd trusts an authority of its own",
        _flags("etcd", IsSet(), "trusted-ca-file"),
        _OWN_AUTHORITY,
        scored=False,
    ),
    # 3 Audit
    Check(
        "3.2.1",
        Place.MASTERS,
        "A policy says what is written into the audit log",
        _flags(_API, IsSet(), "audit-policy-file"),
        "Who did what; never the content of Secrets, ConfigMaps or tokens.",
        scored=False,
    ),
    # 4 Nodes
    Check(
        "4.1.1",
        Place.NODES,
        "Only root reads or writes what starts the kubelet",
        _mode(0o600, *_unit("kubelet")),
        _UNITS_CLOSED,
    ),
    Check(
        "4.1.2",
        Place.NODES,
        "What starts the kubelet belongs to root",
        _owner(_ROOT, *_unit("kubelet")),
        _UNITS_CLOSED,
    ),
    Check(
        "4.1.3",
        Place.PROXIES,
        "Only root reads or writes kube-proxy's kubeconfig",
        _mode(0o600, "{kube-proxy kubeconfig}"),
        "It is the kubelet's, so that a node has one key less.",
        scored=False,
    ),
    Check(
        "4.1.4",
        Place.PROXIES,
        "kube-proxy's kubeconfig belongs to root",
        _owner(_ROOT, "{kube-proxy kubeconfig}"),
        "It is the kubelet's.",
        scored=False,
    ),
    Check(
        "4.1.5",
        Place.NODES,
        "Only root reads or writes the kubelet's kubeconfig",
        _mode(0o600, "{kubelet --kubeconfig}"),
        "The kubelet writes it 0600 when it registers.",
    ),
    Check(
        "4.1.6",
        Place.NODES,
        "The kubelet's kubeconfig belongs to root",
        _owner(_ROOT, "{kubelet --kubeconfig}"),
        "The kubelet runs as root.",
    ),
    Check(
        "4.1.7",
        Place.NODES,
        "Nobody but root writes the authority by which the kubelet verifies clients",
        _mode(0o644, "{kubelet clientCAFile}"),
        "Written 0644.",
        scored=False,
    ),
    Check(
        "4.1.8",
        Place.NODES,
        "The authority by which the kubelet verifies clients belongs to root",
        _owner(_ROOT, "{kubelet clientCAFile}"),
        "Owned by root.",
        scored=False,
    ),
    Check(
        "4.1.9",
        Place.NODES,
        "Only root reads or writes the kubelet's settings",
        _mode(0o600, "{kubelet --config}"),
        "Written 0600.",
    ),
    Check(
        "4.1.10",
        Place.NODES,
        "The kubelet's settings belong to root",
        _owner(_ROOT, "{kubelet --config}"),
        "Owned by root.",
    ),
    Check(
        "4.2.1",
        Place.NODES,
        "Nobody asks a kubelet without saying who they are",
        _kubelet("anonymous-auth", "authentication.anonymous.enabled", Is("false"), "true"),
        "Off.",
    ),
    Check(
        "4.2.2",
        Place.NODES,
        "A kubelet does not allow every request",
        _kubelet("authorization-mode", "authorization.mode", HasNot("AlwaysAllow"), "AlwaysAllow"),
        "Webhook: it asks the apiserver who may do what.",
    ),
    Check(
        "4.2.3",
        Place.NODES,
        "A kubelet verifies client certificates",
        _kubelet("client-ca-file", "authentication.x509.clientCAFile", IsSet()),
        "Against the cluster's authority.",
    ),
    Check(
        "4.2.4",
        Place.NODES,
        "The kubelet has no port that is open to all",
        _kubelet("read-only-port", "readOnlyPort", Is("0"), "0"),
        "0: there is none.",
        scored=False,
    ),
    Check(
        "4.2.5",
        Place.NODES,
        "Idle connections of exec and port-forward end some time",
        _kubelet(
            "streaming-connection-idle-timeout", "streamingConnectionIdleTimeout", NotZero(), "4h0m"
        ),
        "After four hours.",
        scored=False,
    ),
    Check(
        "4.2.6",
        Place.NODES,
        "The kubelet keeps its own rules in the packet filter",
        _kubelet("make-iptables-util-chains", "makeIPTablesUtilChains", Is("true"), "true"),
        "On.",
    ),
    Check(
        "4.2.7",
        Place.NODES,
        "A Node has its machine's name",
        (Setting("kubelet", "hostname-override", IsNotSet()),),
        "Not set; machines whose hostname is another are refused before anything is touched.",
        scored=False,
    ),
    Check(
        "4.2.8",
        Place.NODES,
        "The kubelet reports events, at a rate",
        _kubelet("event-qps", "eventRecordQPS", AtLeast(0), "50"),
        "50 a second.",
        scored=False,
    ),
    Check(
        "4.2.9",
        Place.NODES,
        "The kubelet is served under a certificate of the cluster's",
        (
            *_kubelet("tls-cert-file", "tlsCertFile", IsSet()),
            *_kubelet("tls-private-key-file", "tlsPrivateKeyFile", IsSet()),
        ),
        "Signed by the cluster's authority for the machine's own name and address.",
        scored=False,
    ),
    Check(
        "4.2.10",
        Place.ASKING,
        "The kubelet renews its client certificate",
        _kubelet("rotate-certificates", "rotateCertificates", Is("true"), "false"),
        "On; the controller manager approves only a node's renewal of its own.",
    ),
    Check(
        "4.2.11",
        Place.NODES,
        "Renewing serving certificates is not turned off",
        (
            *_kubelet("feature-gates", "", HasNot("RotateKubeletServerCertificate=false")),
            *_kubelet("", "featureGates.RotateKubeletServerCertificate", Is("true"), "true"),
        ),
        "The feature is not turned off.",
        scored=False,
    ),
    Check(
        "4.2.12",
        Place.NODES,
        "The kubelet speaks strong ciphers only",
        _kubelet("tls-cipher-suites", "tlsCipherSuites", Only(_KUBELET_CIPHERS)),
        "TLS 1.2 and newer; ECDHE with AES-GCM, and the suites of TLS 1.3.",
        scored=False,
    ),
    Check(
        "4.2.13",
        Place.NODES,
        "A pod cannot use up a node's process numbers",
        _kubelet("pod-max-pids", "podPidsLimit", AtLeast(1), "-1"),
        "4096 for a pod.",
        scored=False,
    ),
    Check(
        "4.2.14",
        Place.NODES,
        "Pods run under the runtime's seccomp profile unless they ask for another",
        _kubelet("seccomp-default", "seccompDefault", Is("true"), "false"),
        "On.",
        scored=False,
    ),
    Check(
        "4.3.1",
        Place.PROXIES,
        "kube-proxy shows its metrics on its loopback only",
        (
            Setting(
                "kube-proxy",
                "metrics-bind-address",
                StartsWith("127.0.0.1"),
                "metricsBindAddress",
                "127.0.0.1:10249",
            ),
        ),
        "127.0.0.1.",
    ),
)
