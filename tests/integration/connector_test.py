"""The real pyinfra command with inventories of clusterctl, against real SSH servers."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from provision.inventory import read
from provision.local.progress import Silent
from provision.machines.lab import Lab

PYINFRA = Path(sys.executable).with_name("pyinfra")
SHIPPED = Path(__file__).parents[2] / "inventories"


@pytest.fixture
def pyinfra(tmp_path, monkeypatch):
    """Run the command with a home directory that has no known hosts."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    environment = {**os.environ, "HOME": str(home), "PYINFRA_PROGRESS": "off"}

    def run(*arguments):
        return subprocess.run(
            [PYINFRA, "-y", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=environment,
            cwd=tmp_path,
        )

    return run


@pytest.fixture
def inventory(ground, tmp_path):
    """Write a static inventory of two of the servers."""

    def write(pins):
        user = pwd.getpwuid(os.getuid()).pw_name
        hosts = [
            (
                f"m{n}",
                {
                    "ssh_hostname": "127.0.0.1",
                    "ssh_port": server.port,
                    "address": f"192.0.2.{n}",
                    "ssh_host_key": pin,
                },
            )
            for n, (server, pin) in enumerate(zip(ground.servers, pins, strict=False), start=1)
        ]
        shared = {"ssh_user": user, "ssh_key": str(ground.key)}
        path = tmp_path / "two.py"
        path.write_text(
            f'cluster = {{"name": "two"}}\n'
            f"masters = ({hosts[:1]!r}, {shared!r})\nworkers = ({hosts[1:]!r}, {shared!r})\n"
        )
        return path

    return write


def test_a_command_runs_on_every_machine_whose_pinned_key_is_right(pyinfra, inventory, ground):
    path = inventory([server.host_key for server in ground.servers[:2]])
    result = pyinfra(f"@clusterctl/{path}", "exec", "--", "echo", "port=${SSH_CONNECTION##* }")
    assert result.returncode == 0, result.stderr
    for name, server in zip(("m1", "m2"), ground.servers, strict=False):
        assert f"[{name}] port={server.port}" in result.stdout + result.stderr


def test_a_machine_with_another_key_than_its_pin_is_refused(pyinfra, inventory, ground):
    path = inventory([ground.servers[0].host_key, ground.servers[0].host_key])
    result = pyinfra(f"@clusterctl/{path}", "exec", "--", "echo", "reached=$((1+1))")
    output = result.stdout + result.stderr
    assert "[m1] reached=2" in output
    assert "[m2] reached=2" not in output
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in output


def test_a_machine_with_an_unknown_host_key_is_refused(pyinfra, inventory):
    path = inventory([None, None])
    result = pyinfra(f"@clusterctl/{path}", "exec", "--", "echo", "reached=$((1+1))")
    assert "reached=2" not in result.stdout + result.stderr
    assert "known_hosts" in result.stderr


def test_a_bad_inventory_is_reported_with_clusterctls_own_message(pyinfra, tmp_path):
    (tmp_path / "bad.py").write_text('cluster = {"name": "x", "netwoks": {}}\nmasters = ["m1"]\n')
    result = pyinfra("@clusterctl/bad.py", "debug-inventory")
    assert result.returncode != 0
    assert "did you mean 'networks'?" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_plain_pyinfra_reads_an_inventory_of_static_machines(pyinfra):
    result = pyinfra(str(SHIPPED / "machines.py"), "debug-inventory")
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    blocks = {part.split("]")[0]: part for part in output.split("\n[")[1:]}
    assert sorted(blocks) == ["m1", "m2", "m3", "w1", "w2", "w3"]
    assert all("Groups: masters" in blocks[name] for name in ("m1", "m2", "m3"))
    assert all("Groups: workers" in blocks[name] for name in ("w1", "w2", "w3"))
    assert '"ssh_port": 2222' in blocks["w2"]


@pytest.mark.lab
def test_the_labs_machines_are_reached_by_name(pyinfra, tmp_path):
    path = tmp_path / "lab.py"
    path.write_text('cluster = {"name": "pyinfra", "machines": "lab"}\nmasters = ["m1"]\n')
    absent = pyinfra(f"@clusterctl/{path}", "exec", "--", "hostname")
    assert "clusterctl machines up" in absent.stdout + absent.stderr
    draft = read(path)
    Lab().create(draft, Silent())
    try:
        result = pyinfra(f"@clusterctl/{path}", "exec", "--", "hostname")
        assert "[m1] m1" in result.stdout + result.stderr
    finally:
        Lab().destroy(draft, Silent())
