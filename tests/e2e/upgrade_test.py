"""Upgrade a cluster in use to the next minor version of Kubernetes, and go back.

Only `make test-all` runs this test: it has to compile the older version first. To run only this
file, set CLUSTERCTL_SAMPLE=all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ENGINE, Lab, ready, run
from tests.e2e.sample import long
from tests.e2e.traffic import Traffic

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3600),
    long(900),
]

OLD, NEW = "1.36.3", "1.37.1"
MASTERS = ("m1", "m2", "m3")
NODES = (*MASTERS, "w1", "w2")
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
ON_NODES = ("kubelet", "kube-proxy")
APP = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      tolerations: [{operator: Exists}]
      containers:
        - name: app
          image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
          args: [netexec, --http-port=8080]
          readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
"""


def want(lab: Lab, version: str) -> None:
    """Write a version into the inventory, as an operator does."""
    lab.inventory.write_text(
        f'cluster = {{"name": "test-upgrade", "machines": "lab", "kubernetes": "{version}",\n'
        '    "api": {"vip": "auto"}}\n'
        f"masters = {list(MASTERS)}\n"
        'workers = ["w1", "w2"]\n'
    )


@pytest.fixture
def lab(tmp_path: Path, kubectl_binary: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "inventory.py", kubectl_binary, tmp_path / "kubeconfig")
    want(lab, OLD)
    try:
        lab.up()
        lab.clusterctl("kubeconfig", "-o", tmp_path / "kubeconfig")
        yield lab
    finally:
        if not os.environ.get("CLUSTERCTL_KEEP"):
            lab.clusterctl("down", "--yes")


def versions(lab: Lab) -> dict[tuple[str, str], str]:
    """(machine, daemon) -> the version that the file of the running process prints."""
    found = {}
    for name in NODES:
        for daemon in (*CONTROL_PLANE, *ON_NODES) if name in MASTERS else ON_NODES:
            said = lab.on(name, f"/proc/$(pidof {daemon})/exe --version")
            found[name, daemon] = said.split()[-1].removeprefix("v")
    return found


def nodes(lab: Lab) -> dict[str, str]:
    """Node -> kubelet's version, from the API. Asserts that all Nodes are Ready."""
    items = json.loads(lab.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert ready(items) == dict.fromkeys(NODES, "True")
    return {i["metadata"]["name"]: i["status"]["nodeInfo"]["kubeletVersion"] for i in items}


def runs(lab: Lab, version: str) -> bool:
    shown = versions(lab)
    print(shown)
    return set(shown.values()) == {version} and nodes(lab) == dict.fromkeys(NODES, f"v{version}")


def containers(lab: Lab) -> set[str]:
    """The IDs of the app's containers. A restart changes an ID."""
    shown = "{.items[*].status.containerStatuses[*].containerID}"
    return set(
        lab.kubectl("get", "pods", "-l", "app=app", "-o", f"jsonpath={shown}").stdout.split()
    )


def test_a_cluster_in_use_gets_the_next_minor_version_and_can_go_back(
    lab: Lab, tmp_path: Path
) -> None:
    assert lab.kubeconfig is not None
    assert runs(lab, OLD)
    lab.kubectl("apply", "-f", "-", stdin=APP)
    lab.kubectl("rollout", "status", "daemonset/app", "--timeout=90s")
    lab.kubectl("create", "secret", "generic", "before", "--from-literal=a=b")
    copy = tmp_path / "before.tar.zst.age"
    lab.clusterctl("etcd snapshot", "-o", copy)

    want(lab, NEW)
    planned = lab.clusterctl("plan", check=False)
    assert planned.returncode == 2
    assert NEW in planned.stdout
    running = containers(lab)
    with Traffic(lab.kubeconfig) as traffic:
        lab.up()

    assert traffic.stalled == []
    assert traffic.went_on()
    assert runs(lab, NEW)
    assert containers(lab) == running
    assert len(running) == len(NODES)
    assert lab.clusterctl("plan").returncode == 0
    assert lab.clusterctl("status", check=False).returncode == 0

    lab.kubectl("create", "configmap", "after", "--from-literal=a=b")
    want(lab, OLD)
    refused = lab.clusterctl("up", "--yes", check=False)
    assert refused.returncode == 5
    assert runs(lab, NEW)

    lab.clusterctl("down", "--yes")
    assert run(ENGINE, "ps", "-aq", "--filter", f"name={lab.prefix}").stdout == ""
    lab.clusterctl("etcd restore", "--yes", "--from", copy)
    lab.clusterctl("kubeconfig", "-o", lab.kubeconfig)

    assert runs(lab, OLD)
    lab.kubectl("get", "secret", "before")
    assert "NotFound" in lab.kubectl("get", "configmap", "after", check=False).stderr
    assert lab.clusterctl("plan").returncode == 0
