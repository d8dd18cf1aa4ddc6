"""The components' deploys, run by pyinfra's own command on a machine of a running cluster."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from provision.inventory import read
from provision.local.progress import Silent
from provision.machines.lab import Lab

PYINFRA = Path(sys.executable).with_name("pyinfra")
CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
CONFIG = "/etc/containerd/config.toml"

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory):
    """The tests' own state directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def inventory(tmp_path_factory):
    """A cluster of one machine."""
    path = tmp_path_factory.mktemp("deploys") / "deploys.py"
    path.write_text(
        'cluster = {"name": "deploys", "machines": "lab", '
        '"addons": {"metrics_server": False, "local_path": False}}\n'
        'masters = ["n1"]\nworkers = ["n1"]\n'
    )
    draft = read(path)
    try:
        subprocess.run([CLUSTERCTL, "up", path, "--yes"], check=True, timeout=800)
        yield path
    finally:
        Lab().destroy(draft, Silent())


def pyinfra(inventory, *arguments):
    return subprocess.run(
        [PYINFRA, *arguments[:1], f"@clusterctl/{inventory}", *arguments[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYINFRA_PROGRESS": "off"},
        cwd=inventory.parent,
    )


def on(inventory, command):
    done = subprocess.run(
        [CLUSTERCTL, "ssh", inventory, "n1", "--", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_a_drifted_file_is_shown_by_a_dry_run_and_repaired_by_the_real_one(inventory):
    before = on(inventory, f"cat {CONFIG}")
    etcd = on(inventory, "systemctl show -p ActiveEnterTimestampMonotonic etcd")
    on(inventory, f"echo '# by hand' >>{CONFIG}")

    dry = pyinfra(inventory, "--dry", "provision.pyinfra_plugin.containerd")
    assert dry.returncode == 0, dry.stderr
    assert "containerd" in dry.stderr
    assert "# by hand" in on(inventory, f"cat {CONFIG}")

    done = pyinfra(inventory, "-y", "provision.pyinfra_plugin.containerd")
    assert done.returncode == 0, done.stderr
    assert on(inventory, f"cat {CONFIG}") == before
    assert on(inventory, "systemctl is-active containerd").strip() == "active"
    assert on(inventory, "systemctl show -p ActiveEnterTimestampMonotonic etcd") == etcd

    again = pyinfra(inventory, "-y", "provision.pyinfra_plugin.containerd")
    assert again.returncode == 0, again.stderr
    assert re.search(r"No changes", again.stderr), again.stderr


def test_a_binary_that_is_gone_is_brought_back_and_several_run_from_one_file(inventory):
    hashed = on(inventory, "sha256sum /usr/local/bin/runc")
    on(inventory, "rm /usr/local/bin/runc")
    deploy = inventory.with_name("mine.py")
    deploy.write_text(
        "from provision.pyinfra_plugin import containerd, haproxy, host, kube_scheduler\n"
        "host()\ncontainerd()\nhaproxy()\nkube_scheduler()\n"
    )
    done = pyinfra(inventory, "-y", str(deploy))
    assert done.returncode == 0, done.stderr
    assert on(inventory, "sha256sum /usr/local/bin/runc") == hashed
    planned = subprocess.run([CLUSTERCTL, "plan", inventory], check=False, capture_output=True)
    assert planned.returncode == 0, planned.stdout


def test_a_binary_that_was_changed_is_found_by_a_deep_check(inventory):
    on(inventory, "cp -p /usr/local/bin/ctr /root/ctr && echo >>/usr/local/bin/ctr")
    try:
        found = subprocess.run(
            [CLUSTERCTL, "check", "--deep", inventory], check=False, capture_output=True, text=True
        )
        assert found.returncode == 4
        assert "n1: /usr/local/bin/ctr is not what was installed" in found.stderr
    finally:
        on(inventory, "mv /root/ctr /usr/local/bin/ctr")
    sound = subprocess.run(
        [CLUSTERCTL, "check", "--deep", inventory], check=True, capture_output=True, text=True
    )
    assert "binaries have the SHA-256 that was installed" in sound.stdout


def test_a_member_without_data_is_refused(inventory):
    on(inventory, "systemctl stop etcd && mv /var/lib/etcd/member /var/lib/etcd/kept")
    try:
        refused = pyinfra(inventory, "-y", "provision.pyinfra_plugin.etcd")
        assert refused.returncode != 0
        assert "clusterctl up" in refused.stdout + refused.stderr
        assert "Traceback" not in refused.stdout + refused.stderr
        assert on(inventory, "systemctl is-active etcd || true").strip() == "inactive"
    finally:
        on(inventory, "mv /var/lib/etcd/kept /var/lib/etcd/member && systemctl start etcd")


def test_a_computer_without_the_keys_gets_the_command_that_fetches_them(tmp_path):
    copy = tmp_path / "copy.py"
    copy.write_text(
        'cluster = {"name": "deploys"}\nmasters = [("n1", {"ssh_hostname": "192.0.2.1"})]\n'
    )
    refused = subprocess.run(
        [PYINFRA, "-y", "--dry", "@local", "--data", f"clusterctl_inventory={copy}",
         "provision.pyinfra_plugin.containerd"],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYINFRA_PROGRESS": "off"},
    )  # fmt: skip
    assert refused.returncode != 0
    assert "clusterctl trust fetch" in refused.stdout + refused.stderr
