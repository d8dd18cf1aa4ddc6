"""A new operator's computer: it has only an inventory and SSH to one master."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provision import inventory
from provision.machines.lab import Lab as LabSource
from tests.e2e.conftest import Lab, run

pytestmark = pytest.mark.e2e


@pytest.fixture
def newcomer(ha: Lab, tmp_path: Path) -> Lab:
    """An operator who reaches only m2: the SSH ports of the other machines are closed."""
    located = LabSource().locate(inventory.read(ha.inventory))

    def hosts(*names: str) -> str:
        listed = []
        for name in names:
            ssh = located[name].ssh
            data = {"ssh_hostname": ssh.hostname, "ssh_key": str(ssh.key)}
            data |= {"ssh_host_key": ssh.host_key, "ssh_port": 22 if name == "m2" else 2299}
            listed.append((name, data))
        return repr(listed)

    path = tmp_path / "theirs.py"
    path.write_text(
        "cluster = {'name': 'test-ha'}\n"
        f"masters = {hosts('m1', 'm2', 'm3')}\nworkers = {hosts('w1', 'w2')}\n"
    )
    return Lab(path, ha.kubectl_binary, tmp_path / "kubeconfig", state=tmp_path / "state")


def test_one_surviving_master_gives_a_new_operator_everything(ha: Lab, newcomer: Lab) -> None:
    said = newcomer.clusterctl("trust fetch")
    assert re.search(
        r"keys of test-ha \(authority [0-9a-f]{12}\) were copied from m2 to ", said.stdout
    )
    assert "m1 was not used: " in said.stderr
    assert "m3 was not used: " in said.stderr

    (pki,) = newcomer.state.glob("clusterctl/clusters/*/pki")
    kept = {path.relative_to(pki).as_posix(): path for path in pki.rglob("*") if path.is_file()}
    assert {"ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "sa.key", "sa.pub"} <= set(kept)
    for name, path in kept.items():
        assert path.stat().st_mode & 0o777 == 0o600
        theirs = run("sha256sum", path).stdout.split()[0]
        assert ha.on("m2", f"sha256sum /etc/kubernetes/pki/{name}").split()[0] == theirs

    assert "are the same as on" in newcomer.clusterctl("trust fetch").stdout
    newcomer.clusterctl("kubeconfig", "-o", newcomer.kubeconfig)
    nodes = newcomer.kubectl("get", "nodes", "-o", "name").stdout
    assert len(nodes.split()) == 5


def test_trust_fetch_fails_and_copies_no_keys_if_no_master_is_reachable(newcomer: Lab) -> None:
    text = newcomer.inventory.read_text()
    newcomer.inventory.write_text(text.replace("'ssh_port': 22}", "'ssh_port': 2299}"))
    refused = newcomer.clusterctl("trust fetch", check=False)
    assert refused.returncode == 6
    assert "m2: " in refused.stderr
    assert not list(newcomer.state.glob("clusterctl/clusters/*/pki"))
