"""`up` removes from the machines what is removed from the inventory."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Lab, until
from tests.e2e.sample import long
from tests.e2e.single.conftest import set_inventory

pytestmark = [pytest.mark.e2e, long(135)]

NAMES = "openssl x509 -in /etc/kubernetes/pki/apiserver.crt -noout -ext subjectAltName"
UNTOUCHED = "systemctl show -p MainPID --value etcd containerd kubelet"
VIRTUAL = "ip -4 -o address show dev eth0 | awk '$4 ~ /\\/32$/ {print $4}'"


def test_a_virtual_address_and_an_addon_are_pruned_with_all_their_files(lab: Lab) -> None:
    addons = {"metrics_server": False, "local_path": True}
    set_inventory(api={"vip": "auto"}, addons=addons)
    lab.up()
    assert "clusterctl-keepalived.service" in lab.on("n1", "ls /etc/systemd/system")
    vip = until("the virtual address", lambda: lab.on("n1", VIRTUAL).strip())
    running = lab.on("n1", UNTOUCHED)

    set_inventory()
    planned = json.loads(lab.clusterctl("plan", "-o", "json", check=False).stdout)
    lab.up()

    assert planned["machines"]["n1"]["remove"] == {
        "keepalived": {
            "whole": True,
            "units": ["clusterctl-keepalived.service"],
            "paths": [
                "/etc/clusterctl/keepalived.conf",
                "/usr/local/sbin/clusterctl-check-apiserver",
                "/etc/systemd/system/clusterctl-keepalived.service",
            ],
        },
        "manifests": {
            "whole": False,
            "units": [],
            "paths": ["/etc/kubernetes/clusterctl/local-path.yaml"],
        },
    }
    assert planned["manifests"]["delete"] == ["local-path"]
    for path in planned["machines"]["n1"]["remove"]["keepalived"]["paths"]:
        assert lab.on("n1", f"ls {path} 2>/dev/null; true") == ""
    assert vip
    assert lab.on("n1", VIRTUAL) == ""
    unit = lab.on("n1", "systemctl show -p LoadState --value clusterctl-keepalived.service")
    assert unit.strip() == "not-found"
    assert lab.on("n1", "pgrep -x keepalived; true") == ""
    assert "keepalived" not in lab.on("n1", "ls /var/lib/clusterctl/record")
    assert "local-path" not in lab.on("n1", "cat /var/lib/clusterctl/record/*")
    # The apiserver's certificate loses the address, and kube-proxy no longer serves NodePorts there.
    parts = planned["machines"]["n1"]["components"].values()
    changed = [unit for part in parts for unit in part["units"]]
    assert changed == ["kube-apiserver.service", "kube-proxy.service"]
    assert f"IP Address:{str(vip).partition('/')[0]}" not in lab.on("n1", NAMES)
    assert lab.on("n1", UNTOUCHED) == running
    namespaces = lab.clusterctl("kubectl", "--", "get", "namespaces").stdout
    assert "local-path-storage   Active" not in namespaces
    assert lab.clusterctl("plan").returncode == 0
