"""Check from outside that the running cluster is hardened: /proc, stat, configz, curl, openssl.

The expected values are written here a second time, by hand, from the benchmark. The tests use none
of the audit's data or code, so that an error in one of them is found.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Lab, run, until

pytestmark = pytest.mark.e2e

PKI = "/etc/kubernetes/pki"

# Flag -> its required value; None: the flag must not be set; "*": any value.
FLAGS = {
    "kube-apiserver": {
        "anonymous-auth": "false",
        "token-auth-file": None,
        "kubelet-client-certificate": "*",
        "kubelet-client-key": "*",
        "kubelet-certificate-authority": "*",
        "authorization-mode": "Node,RBAC",
        "disable-admission-plugins": None,
        "profiling": "false",
        "audit-log-path": "*",
        "audit-log-maxage": "30",
        "audit-log-maxbackup": "10",
        "audit-log-maxsize": "100",
        "audit-policy-file": "*",
        "service-account-lookup": "true",
        "service-account-key-file": "*",
        "service-account-extend-token-expiration": "false",
        "etcd-certfile": "*",
        "etcd-keyfile": "*",
        "etcd-cafile": "*",
        "tls-cert-file": "*",
        "tls-private-key-file": "*",
        "client-ca-file": "*",
        "encryption-provider-config": "*",
    },
    "kube-controller-manager": {
        "terminated-pod-gc-threshold": "*",
        "profiling": "false",
        "use-service-account-credentials": "true",
        "service-account-private-key-file": "*",
        "root-ca-file": "*",
        "feature-gates": None,
        "bind-address": "127.0.0.1",
    },
    "kube-scheduler": {"profiling": "false", "bind-address": "127.0.0.1"},
    "etcd": {
        "cert-file": "*",
        "key-file": "*",
        "client-cert-auth": "true",
        "auto-tls": None,
        "peer-cert-file": "*",
        "peer-key-file": "*",
        "peer-client-cert-auth": "true",
        "peer-auto-tls": None,
        "trusted-ca-file": "*",
        "data-dir": "/var/lib/etcd",
    },
    "kubelet": {"hostname-override": None, "feature-gates": None},
    "kube-proxy": {"metrics-bind-address": None},
}
PLUGINS = {"NodeRestriction", "AlwaysPullImages", "EventRateLimit", "DenyServiceExternalIPs"}
CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
}
# Paths that only root may access.
CLOSED = {
    "master": (
        *(f"/etc/systemd/system/{name}.service" for name in list(FLAGS)[:4]),
        *(f"/etc/kubernetes/{name}.conf" for name in ("admin", "scheduler", "controller-manager")),
    ),
    "node": (
        "/etc/systemd/system/kubelet.service",
        "/etc/kubernetes/kubelet.conf",
        "/var/lib/kubelet/config.yaml",
    ),
}


def masters(lab: Lab) -> list[str]:
    return [name for name in lab.addresses() if name.startswith("m")]


def command_lines(lab: Lab, machine: str) -> dict[str, dict[str, str]]:
    """Daemon of clusterctl -> its flags, from the running processes, without programs of pods."""
    out = lab.on(
        machine,
        "for p in /proc/[0-9]*; do case $(readlink $p/exe) in /usr/local/bin/*) "
        "tr '\\0' '\\n' <$p/cmdline; echo; esac; done",
    )
    found = {}
    for block in out.split("\n\n"):
        program, *arguments = block.strip().splitlines() or [""]
        name = program.rsplit("/", 1)[-1]
        if name in FLAGS:
            assert name not in found
            assert all(a.startswith("--") and "=" in a for a in arguments)
            found[name] = dict(a.removeprefix("--").split("=", 1) for a in arguments)
    return found


def test_daemons_run_with_the_flags_of_the_benchmark(ha: Lab) -> None:
    for machine in ha.addresses():
        found = command_lines(ha, machine)
        master = machine in masters(ha)
        assert set(found) == (set(FLAGS) if master else {"kubelet", "kube-proxy"})
        for name, flags in found.items():
            for flag, wanted in FLAGS[name].items():
                there = flags.get(flag)
                assert there if wanted == "*" else there == wanted, f"{name} --{flag}={there}"
        if master:
            api = found["kube-apiserver"]
            assert set(api["enable-admission-plugins"].split(",")) >= PLUGINS
            assert set(api["tls-cipher-suites"].split(",")) <= CIPHERS


def test_files_have_the_right_mode_and_owner(ha: Lab) -> None:
    for machine in ha.addresses():
        files_are_closed(ha, machine, master=machine in masters(ha))


def files_are_closed(ha: Lab, machine: str, *, master: bool) -> None:
    paths = [*CLOSED["node"], *(CLOSED["master"] if master else ())]
    out = ha.on(
        machine,
        f"stat -c '%a %U:%G' {' '.join(paths)}; echo --; "
        "find /etc/cni/net.d /var/lib/cni/networks -type f -exec stat -c '%a %U:%G' {} +; echo --; "
        f"find {PKI} -exec stat -c '%U:%G' {{}} +; echo --; "
        f"find {PKI} -name '*.key' -exec stat -c '%a %n' {{}} +; echo --; "
        f"find {PKI} -name '*.crt' -exec stat -c '%a %n' {{}} +; echo --; "
        "stat -c '%a %U:%G' /var/lib/etcd 2>/dev/null; true",
    )
    fixed, network, pki, keys, certificates, data = (
        part.strip().splitlines() for part in out.split("--\n")
    )
    assert fixed == ["600 root:root"] * len(paths)
    assert network
    assert set(network) == {"600 root:root"}
    assert set(pki) == {"root:root"}
    assert {line.split()[0] for line in keys} == {"600"}
    assert {line.split()[0] for line in certificates} == {"644"}
    # Every machine of the lab has a volume at this path, even if it is no etcd member.
    assert not master or data == ["700 etcd:etcd"]


@pytest.mark.parametrize("machine", ["m1", "w1"])
def test_the_kubelets_configz_shows_the_hardened_settings(ha: Lab, machine: str) -> None:
    raw = ha.kubectl("get", "--raw", f"/api/v1/nodes/{machine}/proxy/configz").stdout
    config = json.loads(raw)["kubeletconfig"]
    assert config["authentication"]["anonymous"]["enabled"] is False
    assert config["authentication"]["x509"]["clientCAFile"] == f"{PKI}/ca.crt"
    assert config["authorization"]["mode"] == "Webhook"
    assert config.get("readOnlyPort", 0) == 0
    assert config["streamingConnectionIdleTimeout"] not in ("0s", "0")
    assert config["makeIPTablesUtilChains"] is True
    assert config["eventRecordQPS"] >= 0
    assert config["tlsCertFile"]
    assert config["tlsPrivateKeyFile"]
    assert config["rotateCertificates"] is True
    assert config.get("featureGates", {}).get("RotateKubeletServerCertificate", True)
    assert set(config["tlsCipherSuites"]) <= CIPHERS
    assert config["tlsMinVersion"] == "VersionTLS12"
    assert config["podPidsLimit"] > 0
    assert config["seccompDefault"] is True


def test_all_masters_encrypt_secrets_with_one_strong_provider_and_key(ha: Lab) -> None:
    path = "/etc/kubernetes/encryption.yaml"
    first = f"grep -A1 providers: {path} | tail -n 1 | tr -cd a-z; sha256sum < {path}"
    seen = {ha.on(name, first) for name in masters(ha)}
    assert len(seen) == 1
    assert seen.pop().startswith("secretbox")


def test_audit_finds_that_every_check_holds(ha: Lab) -> None:
    report = json.loads(ha.clusterctl("audit", "-o", "json").stdout)
    assert report["holds"]
    assert sum(check["scored"] for check in report["checks"]) == 65
    assert len(report["checks"]) == 92
    assert {name for c in report["checks"] for name in c["machines"]} == set(ha.addresses())


@pytest.fixture
def opened(ha: Lab) -> Iterator[str]:
    path = "/etc/kubernetes/scheduler.conf"
    ha.on("m1", f"chmod 644 {path}")
    yield path
    ha.on("m1", f"chmod 600 {path}")


def test_audit_names_a_file_with_a_loose_mode_and_the_command_that_fixes_it(
    ha: Lab, opened: str
) -> None:
    seen = ha.clusterctl("audit", check=False)
    assert seen.returncode == 11
    assert f"m1 -- chmod 600 {opened}" in seen.stdout
    report = json.loads(ha.clusterctl("audit", "-o", "json", check=False).stdout)
    assert {c["id"]: c["problems"][0]["machine"] for c in report["checks"] if c["problems"]} == {
        "1.1.15": "m1"
    }


def test_namespaces_refuse_pods_below_baseline_and_warn_below_restricted(ha: Lab) -> None:
    pod = ("run", "p", "--image=docker.io/library/busybox:1.37", "--dry-run=server")
    ha.kubectl("create", "namespace", "plain")
    try:
        refused = ha.kubectl("-n", "plain", *pod, "--privileged", check=False)
        assert refused.returncode != 0
        assert 'violates PodSecurity "baseline' in refused.stderr
        warned = ha.kubectl("-n", "plain", *pod)
        assert 'would violate PodSecurity "restricted' in warned.stderr
    finally:
        ha.kubectl("delete", "namespace", "plain", "--wait=false")


def test_a_pod_without_a_seccomp_profile_gets_the_runtimes_default(ha: Lab) -> None:
    ha.kubectl(
        "run", "seccomp", "--image=docker.io/library/busybox:1.37", "--restart=Never",
        "--", "cat", "/proc/self/status",
    )  # fmt: skip
    try:
        ha.kubectl(
            "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/seccomp", "--timeout=90s"
        )
        assert "Seccomp:\t2" in ha.kubectl("logs", "seccomp").stdout
    finally:
        ha.kubectl("delete", "pod", "seccomp", "--wait=false")


@pytest.mark.parametrize("port", [6443, 2379, 10250])
def test_old_versions_of_tls_are_refused(ha: Lab, port: int) -> None:
    address = ha.addresses()["m1"]
    # At security level 0, openssl itself speaks TLS 1.1. So it is the server that refuses it.
    seen = run(
        "openssl", "s_client", "-connect", f"{address}:{port}", "-tls1_1",
        "-cipher", "DEFAULT:@SECLEVEL=0", stdin="", check=False,
    )  # fmt: skip
    assert "alert protocol version" in seen.stderr


def test_etcd_refuses_clients_without_a_certificate_of_its_own_authority(ha: Lab) -> None:
    address = ha.addresses()["m1"]
    without = run("curl", "-sk", "-m", "5", f"https://{address}:2379/health", check=False)
    assert without.returncode != 0
    # A client certificate of the Kubernetes authority is refused too.
    code = ha.on(
        "m1",
        f"curl -sk -m 5 --cert {PKI}/admin.crt --key {PKI}/admin.key "
        "https://127.0.0.1:2379/health >/dev/null; echo $?",
    )
    assert code.strip() not in ("", "0")


def test_an_administrator_cannot_profile_the_apiserver(ha: Lab) -> None:
    seen = ha.kubectl("get", "--raw", "/debug/pprof/", check=False)
    assert seen.returncode != 0


def test_a_pods_token_is_bound_to_the_pod_and_expires_within_an_hour(ha: Lab) -> None:
    token = ha.kubectl("create", "token", "default").stdout
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["exp"] - claims["iat"] <= 3700
    assert claims["iss"] == "https://kubernetes.default.svc.cluster.local"


def test_the_audit_log_names_the_user_who_read_a_secret_but_not_its_content(ha: Lab) -> None:
    ha.kubectl("create", "secret", "generic", "watched", "--from-literal=password=canary-7f3a")
    try:
        log = "/var/log/kubernetes/audit.log"

        def lines(text: str) -> int:
            return sum(int(ha.on(name, f"grep -c {text} {log}; true")) for name in masters(ha))

        until("the audit log has the Secret's name", lambda: lines("watched"), 20)
        assert lines("canary-7f3a") == 0
        encoded = base64.b64encode(b"canary-7f3a").decode()
        assert lines(encoded) == 0
        for name in masters(ha):
            assert ha.on(name, f"stat -c %a {log} /var/log/kubernetes").split() == ["600", "700"]
    finally:
        ha.kubectl("delete", "secret", "watched")
