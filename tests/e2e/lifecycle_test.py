"""Clusters from beginning to end: bare machines, killed runs, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import ENGINE, Lab, cluster, run, until
from tests.e2e.sample import long

pytestmark = pytest.mark.e2e

# Paths that a running system changes by itself, or that the package manager keeps.
NOISE = (
    "/proc", "/sys", "/run", "/tmp", "/dev", "/var/log", "/var/cache", "/var/lib/apt",
    "/var/lib/dpkg", "/var/lib/systemd", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd",
    "/root", "/home", "/usr/share", "/var/lib/polkit-1", "/etc/ld.so.cache", "/var/lib/private",
    "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/var/lib/ucf", "/usr/lib/python3",
    "/etc/ssl", "/var/lib/python", "/var/backups",
)  # fmt: skip


@pytest.fixture
def bare() -> Iterator[Lab]:
    yield from cluster("bare")


def paths(lab: Lab) -> set[str]:
    prune = " -o ".join(f"-path {path}" for path in NOISE)
    found = lab.on("n1", f"find / \\( {prune} \\) -prune -o -not -type d -print")
    return set(found.splitlines())


@long(90)
def test_a_bare_machine_with_a_sudo_user_becomes_a_cluster_and_down_restores_it(
    bare: Lab, tmp_path: Path
) -> None:
    bare.clusterctl("machines up")
    machine = bare.machines()["n1"]
    assert machine["ssh"].startswith("admin@")
    # Use the same machine by its address, as a user's own machine: `down` cleans it and keeps it.
    from provision import inventory
    from provision.machines.lab import Lab as LabSource

    draft = inventory.read(bare.inventory)
    ssh = LabSource().locate(draft)["n1"].ssh
    own = tmp_path / "own.py"
    data = {
        "ssh_hostname": machine["address"],
        "ssh_user": ssh.user,
        "ssh_key": str(ssh.key),
        "ssh_host_key": ssh.host_key,
        "_sudo": True,
    }
    own.write_text(f"cluster = {{'name': 'own'}}\nmasters = [('n1', {data!r})]\nworkers = ['n1']\n")
    before = paths(bare)
    static = Lab(own)

    static.up()

    version = static.clusterctl("kubectl", "--", "get", "node", "n1", "-o", "name").stdout
    assert version.strip() == "node/n1"
    static.clusterctl("verify")
    done = json.loads(static.clusterctl("up", "--yes", "-o", "json").stdout)
    assert done["changed"] == {}

    # After this, the service has written its metrics.
    static.ssh("n1", "systemctl start clusterctl-certs")

    static.clusterctl("down", "--yes")

    left = {path for path in paths(bare) - before if not path.endswith((".pyc", ".dpkg-old"))}
    assert left == set()
    names = "'kube*' 'etcd*' 'clusterctl*' 'containerd*'"
    units = bare.on("n1", f"systemctl list-units --all --plain --no-legend {names}")
    # systemd still knows names that units of other programs mention.
    assert [line for line in units.splitlines() if " not-found " not in line] == []
    assert "clusterctl" not in bare.on("n1", "awk '{print $2}' /proc/mounts")
    assert "/var/lib/kubelet/pods" not in bare.on("n1", "cat /proc/mounts")
    links = bare.on("n1", "ip -o link")
    assert "cni0" not in links
    assert "veth" not in links.replace("eth0@", "")


def test_down_leaves_nothing_of_a_lab_on_this_computer() -> None:
    for lab in cluster("interrupted"):
        lab.clusterctl("machines up")
        lab.clusterctl("down", "--yes")
        for what in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
            listed = run(
                ENGINE, *what, "--format", "{{.Name}}" if what[0] != "ps" else "{{.Names}}"
            )
            assert lab.prefix not in listed.stdout
        state = Path.home() / ".local/state/clusterctl/labs" / lab.prefix.removesuffix("-")
        until("its state is gone", partial(_is_gone, state), 5)


def _is_gone(path: Path) -> bool:
    return not path.exists()
