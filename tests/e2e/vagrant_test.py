"""A cluster on machines that Vagrant makes, from creation to complete removal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.local.cache import identity
from tests.e2e.conftest import ENGINE, Lab, cluster, ready, run
from tests.e2e.sample import long

pytestmark = [pytest.mark.e2e, long(210)]

VAGRANT_FOLDER = Path(__file__).parents[2] / "vagrant"


@pytest.fixture
def vagrant() -> Iterator[Lab]:
    if shutil.which("vagrant") is None:
        if os.environ.get("CLUSTERCTL_LAB") == "required":
            pytest.fail("vagrant is not installed: scripts/setup test")
        pytest.skip("vagrant is not installed")
    yield from cluster("vagrant")


def by_hand(lab: Lab, *arguments: str) -> str:
    """The output of Vagrant itself, called in its folder as docs/vagrant.md describes."""
    dotfile = json.loads(lab.clusterctl("machines list", "-o", "json").stdout)[0]["spec"]["dotfile"]
    done = subprocess.run(
        ["vagrant", *arguments],
        cwd=VAGRANT_FOLDER,
        env={
            **os.environ,
            "CLUSTERCTL_INVENTORY": str(lab.inventory),
            "VAGRANT_DOTFILE_PATH": dotfile,
            "VAGRANT_CHECKPOINT_DISABLE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def engine_objects() -> set[str]:
    """Containers, networks and volumes of the test, as the container engine lists them."""
    names = (
        run(ENGINE, "ps", "-a", "--format", "{{.Names}}").stdout.split()
        + run(ENGINE, "network", "ls", "--format", "{{.Name}}").stdout.split()
        + run(ENGINE, "volume", "ls", "--format", "{{.Name}}").stdout.split()
    )
    return {name for name in names if name.startswith("test-vagrant-")}


def test_vagrant_machines_become_a_cluster_and_down_removes_every_trace(
    vagrant: Lab, kubectl_binary: Path, tmp_path: Path
) -> None:
    vagrant.up()

    vagrant.kubectl_binary, vagrant.kubeconfig = kubectl_binary, tmp_path / "kubeconfig"
    vagrant.clusterctl("kubeconfig", "-o", vagrant.kubeconfig)
    nodes = json.loads(vagrant.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert ready(nodes) == {"m1": "True", "w1": "True"}
    addresses = {node["metadata"]["name"]: node["status"]["addresses"] for node in nodes}
    for name, machine in vagrant.machines().items():
        assert {"type": "InternalIP", "address": machine["address"]} in addresses[name]

    done = json.loads(vagrant.clusterctl("up", "--yes", "-o", "json").stdout)
    assert done["changed"] == {}

    # Vagrant made the machines, and reaches the machine whose host key clusterctl trusts.
    assert by_hand(vagrant, "status", "--machine-readable").count(",state,running") == 2
    shown = by_hand(vagrant, "ssh", "m1", "--no-tty", "-c", "cat /etc/ssh/ssh_host_ed25519_key.pub")
    port = vagrant.machines()["m1"]["ssh"].rpartition(":")[2]
    state = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "clusterctl"
    # Another checkout may have state of the same name.
    known_hosts = state / "clusters" / identity("test-vagrant", vagrant.inventory) / "known_hosts"
    assert f"[127.0.0.1]:{port} {' '.join(shown.split()[:2])}" in known_hosts.read_text()

    # Vagrant switches a machine off, and clusterctl switches it on again.
    by_hand(vagrant, "halt", "w1")
    assert vagrant.machines()["w1"]["state"] == "stopped"
    vagrant.clusterctl("machines up")
    assert vagrant.machines()["w1"]["state"] == "running"
    assert vagrant.ssh("w1", "hostname").strip() == "w1"

    assert engine_objects() != set()
    vagrant.clusterctl("down", "--yes")
    assert engine_objects() == set()
    assert not (state / "labs" / vagrant.prefix.removesuffix("-")).exists()
    assert sorted(path.name for path in VAGRANT_FOLDER.iterdir()) == ["Vagrantfile"]
    # Vagrant's index lists the machines of all checkouts.
    index = Path.home() / ".vagrant.d/data/machine-index/index"
    assert vagrant.prefix.removesuffix("-") not in index.read_text()
