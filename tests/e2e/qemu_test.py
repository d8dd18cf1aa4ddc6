"""A cluster on a virtual machine that has its own kernel and cgroup v2.

Only `make test-all` runs this test: a container takes seconds, QEMU without acceleration minutes.
To run only this file, set CLUSTERCTL_SAMPLE=all. It needs qemu-system-x86 and e2fsprogs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import qemu_machine
from tests.e2e.conftest import Lab, run, until
from tests.e2e.sample import long

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3600),
    long(900),
]


@pytest.fixture
def virtual(tmp_path: Path) -> Iterator[Lab]:
    """One machine, in an inventory of a user's own machines."""
    with qemu_machine.machine(tmp_path) as ways:
        data = {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": ways.port,
            "ssh_key": str(ways.key),
            "ssh_host_key": ways.host_key,
            "address": qemu_machine.ADDRESS,
        }
        inventory = tmp_path / "inventory.py"
        # This machine is so slow that components would lose leases of 15 s again and again.
        patient = {
            "leader-elect-lease-duration": "120s",
            "leader-elect-renew-deadline": "90s",
            "leader-elect-retry-period": "5s",
        }
        settings = {
            "name": "test-qemu",
            "addons": {"metrics_server": False, "local_path": False},
            "extra_args": {"kube-controller-manager": patient, "kube-scheduler": patient},
        }
        inventory.write_text(
            f"cluster = {settings!r}\n"
            f"masters = [({qemu_machine.NAME!r}, {data!r})]\nworkers = [{qemu_machine.NAME!r}]\n"
        )
        lab = Lab(inventory)
        until(
            "it lets us in",
            lambda: lab.clusterctl("ssh", "q1", "--", "true", check=False).returncode == 0,
            600,
        )
        try:
            yield lab
        finally:
            print(ways.console.read_text(errors="replace")[-2000:])


KERNEL = "sysctl net.ipv4.ip_forward vm.overcommit_memory kernel.panic kernel.panic_on_oops"


def test_a_machine_with_its_own_kernel_and_cgroup_v2_becomes_a_cluster(virtual: Lab) -> None:
    assert virtual.ssh("q1", "stat -fc %T /sys/fs/cgroup").strip() == "cgroup2fs"
    assert virtual.ssh("q1", "uname -r").strip() != run("uname", "-r").stdout.strip()

    before = virtual.ssh("q1", KERNEL)
    virtual.up()
    assert virtual.ssh("q1", KERNEL) != before

    node = json.loads(virtual.clusterctl("kubectl", "--", "get", "node", "q1", "-o", "json").stdout)
    ready = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert ready["Ready"] == "True"
    assert "cloud" in node["status"]["nodeInfo"]["kernelVersion"]
    slices = virtual.ssh("q1", "ls -d /sys/fs/cgroup/kubepods.slice")
    assert slices.strip() == "/sys/fs/cgroup/kubepods.slice"
    done = json.loads(virtual.clusterctl("up", "--yes", "-o", "json").stdout)
    assert done["changed"] == {}

    virtual.clusterctl("down", "--yes")
    gone = "/etc/kubernetes /var/lib/etcd /sys/fs/cgroup/kubepods.slice"
    assert virtual.ssh("q1", f"ls -d {gone} 2>/dev/null || true") == ""
    assert virtual.ssh("q1", KERNEL) == before
