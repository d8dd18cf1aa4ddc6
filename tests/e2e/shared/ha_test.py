"""A highly available cluster after `clusterctl up`. All tests use the same cluster."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import CLUSTERCTL, ENGINE, ETCDCTL, Lab, run, until
from tests.e2e.sample import long

pytestmark = pytest.mark.e2e

APP = """
apiVersion: v1
kind: Secret
metadata: {name: app}
stringData: {password: correct-horse}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app}
data: {greeting: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
        - name: app
          image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
          args: [netexec, --http-port=8080]
          env:
            - {name: GREETING, valueFrom: {configMapKeyRef: {name: app, key: greeting}}}
          volumeMounts: [{name: secret, mountPath: /secret}]
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
      volumes: [{name: secret, secret: {secretName: app}}]
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec:
  selector: {app: app}
  ports: [{port: 80, targetPort: 8080}]
"""

CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  containers:
    - name: writer
      image: docker.io/library/busybox:1.37
      command: [sh, -c, "echo kept > /data/file && cat /data/file"]
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"""

OWN = "docker.io/clusterctl-test/own:1"
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


@pytest.fixture(scope="module")
def app(ha: Lab) -> Lab:
    ha.kubectl("apply", "-f", "-", stdin=APP)
    ha.kubectl("rollout", "status", "deployment/app", "--timeout=90s")
    return ha


def nodes(lab: Lab) -> dict[str, bool]:
    items = json.loads(lab.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    return {
        node["metadata"]["name"]: any(
            c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]
        )
        for node in items
    }


def starts(lab: Lab) -> dict[str, str]:
    """When systemd last started each unit of clusterctl, on every machine."""
    command = (
        "systemctl show -p Id,ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic "
        "containerd etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy "
        "clusterctl-haproxy clusterctl-bird clusterctl-registry clusterctl-keepalived"
    )
    return {name: lab.on(name, command) for name in lab.addresses()}


def test_all_nodes_are_ready_and_have_their_roles(ha: Lab) -> None:
    assert nodes(ha) == dict.fromkeys(["m1", "m2", "m3", "w1", "w2"], True)
    masters = ha.kubectl(
        "get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "name"
    )
    assert masters.stdout.split() == ["node/m1", "node/m2", "node/m3"]
    taints = ha.kubectl("get", "node", "m1", "-o", "jsonpath={.spec.taints[*].key}").stdout
    assert taints == "node-role.kubernetes.io/control-plane"


def test_a_second_up_changes_and_restarts_nothing(ha: Lab) -> None:
    before = starts(ha)
    done = ha.clusterctl("up", "--yes", "-o", "json")
    report = json.loads(done.stdout)
    assert report["changed"] == {}
    assert set(report["round_trips"].values()) == {1}
    assert ha.clusterctl("plan").returncode == 0
    assert starts(ha) == before


@long(70)
def test_plan_shows_a_file_changed_by_hand_and_up_repairs_it(ha: Lab) -> None:
    path = "/etc/kubernetes/audit-policy.yaml"
    ha.on("m2", f"echo '# by hand' >> {path}")
    before = starts(ha)
    plan = ha.clusterctl("plan", "-o", "json", check=False)
    assert plan.returncode == 2
    found = json.loads(plan.stdout)["machines"]
    assert list(found) == ["m2"]
    assert list(found["m2"]["components"]) == ["kube-apiserver"]
    assert found["m2"]["components"]["kube-apiserver"]["files"] == {path: "content differs"}
    assert list(found["m2"]["components"]["kube-apiserver"]["units"]) == ["kube-apiserver.service"]
    assert "-# by hand" in ha.clusterctl("plan", check=False).stdout

    ha.clusterctl("up", "--yes")

    assert "by hand" not in ha.on("m2", f"cat {path}")
    after = starts(ha)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"m2"}
    units = [
        new.split("Id=")[1].split("\n")[0]
        for old, new in zip(before["m2"].split("\n\n"), after["m2"].split("\n\n"), strict=True)
        if old != new
    ]
    # The controllers may have lost their leases meanwhile and restarted by themselves.
    leased = {"kube-controller-manager.service", "kube-scheduler.service"}
    assert set(units) - leased == {"kube-apiserver.service"}


def test_status_says_healthy_in_its_exit_code_and_names_one_leader(ha: Lab) -> None:
    status = json.loads(ha.clusterctl("status", "-o", "json").stdout)
    assert status["healthy"]
    assert sum(member["leader"] for member in status["etcd"].values()) == 1


def test_objects_of_add_ons_that_are_deleted_or_edited_come_back(ha: Lab) -> None:
    system = ("-n", "kube-system")
    config = ("configmap", "coredns", *system)
    corefile = ha.kubectl("get", *config, "-o", "jsonpath={.data.Corefile}").stdout
    edited = json.dumps({"data": {"Corefile": f"{corefile}# by hand\n"}})
    ha.kubectl("patch", *config, "--type=merge", "-p", edited)
    ha.kubectl("delete", "service/kube-dns", "poddisruptionbudget/coredns", *system)
    ha.kubectl(
        "delete", "storageclass/local-path", "apiservice/v1beta1.metrics.k8s.io",
        "clusterrole/system:aggregated-metrics-reader",
    )  # fmt: skip

    planned = ha.clusterctl("plan", "-o", "json", check=False)
    status = ha.clusterctl("status", "-o", "json", check=False)
    ha.clusterctl("up", "--yes")

    assert planned.returncode == 2
    wanted = {
        "coredns": "ConfigMap coredns differs in data.Corefile; Service kube-dns is missing; "
        "PodDisruptionBudget coredns is missing",
        "metrics-server": "ClusterRole system:aggregated-metrics-reader is missing; "
        "APIService v1beta1.metrics.k8s.io is missing",
        "local-path": "StorageClass local-path is missing",
    }
    plan = json.loads(planned.stdout)
    assert plan["manifests"]["apply"] == wanted
    assert plan["machines"] == {}
    assert status.returncode == 11
    problems = "\n".join(json.loads(status.stdout)["problems"])
    assert all(f"manifest {name}: {why}" in problems for name, why in wanted.items())
    assert ha.clusterctl("plan").returncode == 0
    assert ha.kubectl("get", *config, "-o", "jsonpath={.data.Corefile}").stdout == corefile


def test_etcdctl_lists_three_voting_members(ha: Lab) -> None:
    listed = ha.on("m1", f"{ETCDCTL} member list -w json")
    members = json.loads(listed)["members"]
    assert sorted(m["name"] for m in members) == ["m1", "m2", "m3"]
    assert not any(m.get("isLearner") for m in members)


def test_openssl_trusts_the_apiserver_under_every_name_that_clients_use(
    ha: Lab, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text(ha.on("m1", "cat /etc/kubernetes/pki/ca.crt"))
    for name in ("m1", "m2", "m3"):
        address = ha.addresses()[name]
        seen = run(
            "openssl", "s_client", "-connect", f"{address}:6443", "-CAfile", authority,
            "-verify_ip", address, "-verify_return_error", stdin="",
        )  # fmt: skip
        assert "Verify return code: 0 (ok)" in seen.stdout


def test_requests_without_a_certificate_are_refused(ha: Lab) -> None:
    endpoint = json.loads(ha.clusterctl("status", "-o", "json").stdout)["endpoints"]["clients"]
    code = run("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", f"{endpoint}/api").stdout
    assert code == "401"
    address = ha.addresses()["w1"]
    code = run(
        "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", f"https://{address}:10250/pods"
    ).stdout
    assert code == "401"


def test_only_the_owner_can_read_the_keys_on_every_machine(ha: Lab) -> None:
    for name in ha.addresses():
        found = ha.on(
            name,
            "find /etc/kubernetes /etc/etcd /var/lib/kubelet/pki -name '*.key' "
            "-perm /077 2>/dev/null; true",
        )
        assert found == ""


def test_secrets_are_encrypted_in_etcd(app: Lab) -> None:
    raw = app.on("m1", f"{ETCDCTL} get /registry/secrets/default/app | base64")
    content = base64.b64decode(raw)
    assert b"k8s:enc:secretbox:v1:key" in content  # the key's number grows with every rotation
    assert b"correct-horse" not in content


def test_a_deployment_sees_its_secret_and_its_config(app: Lab) -> None:
    pods = app.kubectl("get", "pods", "-l", "app=app", "-o", "name").stdout.split()
    assert len(pods) == 2
    assert "Started HTTP server" in app.kubectl("logs", pods[0]).stdout
    shell = f"/api/v1/namespaces/default/pods/{pods[0].removeprefix('pod/')}:8080/proxy/shell?cmd="
    for command, wanted in (
        ("cat%20/secret/password", "correct-horse"),
        ("echo%20%24GREETING", "hello"),
    ):
        assert wanted in app.kubectl("get", "--raw", f"{shell}{command}").stdout
    assert app.kubectl("exec", pods[0], "--", "/agnhost", "help").returncode == 0


def test_port_forward_reaches_a_service(app: Lab) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    forward = subprocess.Popen(
        [
            app.kubectl_binary,
            f"--kubeconfig={app.kubeconfig}",
            "port-forward",
            "service/app",
            f"{port}:80",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        answer = until(
            "an answer through port-forward",
            lambda: (
                run(
                    "curl", "-s", "-m", "2", f"http://127.0.0.1:{port}/hostname", check=False
                ).stdout
            ),
            30,
        )
        assert str(answer).startswith("app-")
    finally:
        forward.terminate()
        forward.wait()


def test_a_claim_gets_a_volume_from_the_default_storage_class(ha: Lab) -> None:
    ha.kubectl("apply", "-f", "-", stdin=CLAIM)
    ha.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/writer", "--timeout=90s")
    assert ha.kubectl("logs", "writer").stdout == "kept\n"
    ha.kubectl("delete", "pod/writer", "pvc/data", "--wait=false")


def test_kubectl_top_shows_every_node(ha: Lab) -> None:
    def shown() -> bool:
        seen = ha.kubectl("top", "nodes", "--no-headers", check=False)
        return seen.returncode == 0 and len(re.findall(r"^(m|w)\d ", seen.stdout, re.M)) == 5

    until("kubectl top nodes", shown, 90)


def test_the_apiserver_warns_when_a_network_policy_is_created(ha: Lab) -> None:
    made = ha.kubectl("apply", "-f", "-", stdin=POLICY)
    assert "does not enforce NetworkPolicy" in made.stderr
    ha.kubectl("delete", "networkpolicy", "deny")


def test_a_pushed_image_runs(ha: Lab, artifacts: dict[str, Path], tmp_path: Path) -> None:
    # Any static program will do.
    (tmp_path / "age").write_bytes(artifacts["age/age"].read_bytes())
    (tmp_path / "age").chmod(0o755)
    (tmp_path / "Containerfile").write_text(
        'FROM scratch\nCOPY age /age\nUSER 65534\nENTRYPOINT ["/age", "--version"]\n'
    )
    run(ENGINE, "build", "-q", "-f", tmp_path / "Containerfile", "-t", OWN, tmp_path)
    try:
        ha.clusterctl("images push", OWN)
    finally:
        run(ENGINE, "rmi", OWN)
    ha.kubectl("run", "own", "--image=clusterctl-test/own:1", "--restart=Never")
    ha.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/own", "--timeout=60s")
    assert ha.kubectl("logs", "own").stdout == run(artifacts["age/age"], "--version").stdout
    ha.kubectl("delete", "pod", "own", "--wait=false")


def test_kubeconfig_merges_into_the_users_file_and_expires_within_hours(
    ha: Lab, tmp_path: Path
) -> None:
    own = tmp_path / "config"
    own.write_text(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: work\n"
        "  cluster: {server: https://192.0.2.1}\nusers: []\ncontexts: []\n"
    )
    run("env", f"KUBECONFIG={own}", CLUSTERCTL, "kubeconfig", ha.inventory, "--merge")
    assert own.stat().st_mode & 0o777 == 0o600
    assert ha.kubectl_binary is not None
    query = ("config", "view", "-o", "jsonpath={.clusters[*].name}")
    names = run(ha.kubectl_binary, f"--kubeconfig={own}", *query).stdout
    assert sorted(names.split()) == ["test-ha", "work"]
    who = run(ha.kubectl_binary, f"--kubeconfig={own}", "auth", "whoami", "-o", "json").stdout
    assert "clusterctl:admins" in who
    assert "system:masters" not in who


def test_kubectl_runs_on_a_master_if_this_computer_has_none(ha: Lab) -> None:
    seen = ha.clusterctl("kubectl", "--", "get", "nodes", "-o", "name").stdout
    assert seen.split() == ["node/m1", "node/m2", "node/m3", "node/w1", "node/w2"]


def test_a_new_operators_computer_copies_the_keys_from_the_masters(ha: Lab, monkeypatch) -> None:
    from provision.local.cache import Cache

    before = ha.on("m1", "sha256sum /etc/kubernetes/pki/ca.key /etc/kubernetes/pki/sa.key")
    Cache("test-ha", ha.inventory).forget()
    done = ha.clusterctl("up", "--yes", "-o", "json")
    assert json.loads(done.stdout)["changed"] == {}
    assert ha.on("m1", "sha256sum /etc/kubernetes/pki/ca.key /etc/kubernetes/pki/sa.key") == before
