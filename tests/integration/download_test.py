"""Downloads as a user types them, over TLS and a proxy, from the publishers' own URLs.

The programs are small; tests/e2e/download_test.py makes a cluster of the real ones.
"""

import subprocess
import time
from types import SimpleNamespace

import pytest

from provision.artifacts import go
from provision.artifacts.catalogue import pins
from provision.artifacts.go import refuse
from provision.commands.converge import needed_artifacts
from provision.local.progress import Silent
from provision.model.errors import ArtifactError
from provision.model.look import Look
from provision.model.settings.components import KUBERNETES_DEFAULT, ArtifactsSource
from provision.model.source import LAB, STATIC, VAGRANT
from tests import publishers, world
from tests.publishers import Publishers

ARCH = go.machine_arch()
KUBELET = f"/dl.k8s.io/v{KUBERNETES_DEFAULT}/bin/linux/{ARCH}/kubelet"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    programs = {p.name: f"{p.name} ".encode() * 2000 for p in pins(KUBERNETES_DEFAULT)}
    return publishers.release(programs, ARCH, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def command(release, tmp_path_factory):
    return publishers.copy_of_clusterctl(tmp_path_factory.mktemp("clusterctl"), release.hashes)


class Operator:
    """An operator whose cache is empty, whose computer has no compiler, and whose network has a proxy."""

    def __init__(self, command, home, server):
        self.command, self.home, self.server = command, home, server
        self.cache = home / "cache" / "clusterctl"

    def fetch(self, settings=""):
        inventory = self.home / "inventory.py"
        inventory.write_text(
            f'cluster = {{"name": "demo", {settings}}}\nmasters = [("m1", {{"address": "192.0.2.1"}})]\n'
            'workers = ["m1"]\n'
        )
        given = publishers.users_variables(self.home)
        return subprocess.run(
            [*self.command, "artifacts", "fetch", inventory, "--arch", ARCH],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.home,
            env={**given, **self.server.environment(), "PATH": "/usr/bin:/bin", "COLUMNS": "250"},
        )

    def kept(self):
        kept = [p for p in self.cache.rglob("*") if p.is_file() and p.name != "lock"]
        return {p.name for p in kept if not p.name.endswith(".json")}


@pytest.fixture
def operator(release, command, tmp_path):
    server = Publishers(tmp_path, dict(release.files))
    yield Operator(command, tmp_path, server)
    server.close()


@pytest.mark.parametrize("settings", ["", '"artifacts": {"source": "official"}'])
def test_every_file_comes_from_its_publisher_once_and_nothing_is_compiled(operator, settings):
    done = operator.fetch(settings)
    assert done.returncode == 0, done.stderr
    assert "compile" not in done.stdout + done.stderr
    assert not (operator.cache / "builds").exists()
    got = operator.server.got("/")
    assert KUBELET in got
    assert len(got) == len(set(got))
    assert {path.split("/")[1] for path in got} == {"dl.k8s.io", "github.com"}
    assert {"kubelet", "etcd", "containerd", "bridge", f"runc.{ARCH}"} <= operator.kept()

    assert operator.fetch(settings).returncode == 0
    assert operator.server.got("/") == got


def test_a_mirror_has_the_same_files_under_its_own_address(operator):
    base = operator.server.url()
    done = operator.fetch(f'"artifacts": {{"source": "mirror", "mirror": "{base}"}}')
    assert done.returncode == 0, done.stderr
    assert KUBELET in operator.server.got("/")


def test_a_slow_server_is_waited_for(operator):
    operator.server.link.rate = 100_000
    began = time.monotonic()
    done = operator.fetch()
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began > operator.server.link.sent / 100_000 > 1
    assert operator.server.got("/").count(KUBELET) == 1


def test_a_server_that_cuts_connections_is_asked_again(operator):
    operator.server.faults[KUBELET] = ["cut", "cut"]
    done = operator.fetch()
    assert done.returncode == 0, done.stderr
    assert operator.server.got("/").count(KUBELET) == 3
    assert "kubelet" in operator.kept()


def test_a_server_that_always_cuts_the_connection_is_given_up_and_other_files_are_kept(operator):
    operator.server.faults[KUBELET] = ["cut"] * 3
    done = operator.fetch()
    said = " ".join(done.stderr.split())
    assert done.returncode == 7
    assert f"https:/{KUBELET}: cut off after" in said
    assert "(3 attempts)" in said
    assert "kubelet" not in operator.kept()

    before = operator.server.got("/")
    assert operator.fetch().returncode == 0
    again = operator.server.got("/")[len(before) :]
    assert not set(again) & (set(before) - {KUBELET})


def test_wrong_bytes_are_refused_with_the_file_and_both_hashes(operator, release):
    operator.server.faults[KUBELET] = ["wrong"]
    done = operator.fetch()
    said = " ".join(done.stderr.split())
    right = publishers.sha256(release.files[KUBELET])
    wrong = bytes([release.files[KUBELET][0] ^ 1]) + release.files[KUBELET][1:]
    assert done.returncode == 7
    assert f"https:/{KUBELET}: wrong hash: expected SHA-256 {right}" in said
    assert f"got {publishers.sha256(wrong)}" in said
    assert operator.server.got("/").count(KUBELET) == 1
    assert "kubelet" not in operator.kept()


@pytest.mark.parametrize("source", [LAB, VAGRANT, STATIC], ids=str)
def test_this_computer_downloads_for_machines_that_run_on_it(tmp_path, monkeypatch, source):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server = Publishers(tmp_path, {})
    mirror = ArtifactsSource(source="mirror", mirror=server.url())
    cluster = world.cluster(source=source, artifacts=mirror)
    look = Look(cluster, world.converged(cluster)[1])
    session = SimpleNamespace(
        cluster=cluster, source=None, draft=None, progress=Silent(), install=refuse
    )
    try:
        if source is STATIC:
            ready = needed_artifacts(session, look, world.trust())
            assert all(item.url for item in ready.items.values())
            assert server.asked == []
        else:
            with pytest.raises(ArtifactError, match="the server answered 404"):
                needed_artifacts(session, look, world.trust())
            assert len(server.asked) == 1
    finally:
        server.close()
