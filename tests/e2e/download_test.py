"""From an empty cache to a verified cluster of published files.

A server on this computer has the publishers' paths and their registries (tests/publishers.py). The
operator and the machine reach it through the product's own settings: the machine by `proxy`, the
operator by the usual variables. Its files are the programs in this computer's cache, so a copy of
clusterctl has their hashes in its catalogue. Nothing else is replaced.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision import inventory
from provision.artifacts import go
from provision.machines.lab import Lab as LabSource
from provision.model import paths
from provision.model.settings.components import KUBERNETES_DEFAULT
from tests import publishers
from tests.e2e.conftest import Lab, cluster
from tests.e2e.sample import long
from tests.publishers import Publishers

pytestmark = [pytest.mark.e2e, long(90, together="download_test.py")]

ARCH = go.machine_arch()
CERTIFICATES = "/usr/local/share/ca-certificates"
KUBELET = f"/dl.k8s.io/v{KUBERNETES_DEFAULT}/bin/linux/{ARCH}/kubelet"


@dataclass
class Site:
    """A machine, the publishers, and an operator with an empty cache.

    Attributes:
        gateway: this computer's address for the machine.
    """

    lab: Lab
    server: Publishers
    release: publishers.Release
    command: tuple[str, ...]
    home: Path
    gateway: str

    def clusterctl(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        given = publishers.users_variables(self.home) | self.server.environment()
        # Without Go: nothing can be compiled.
        return subprocess.run(
            [*self.command, *command.split(), self.home / "own.py", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            cwd=self.home,
            env={**given, "PATH": "/usr/bin:/bin", "COLUMNS": "250"},
        )

    def write_inventory(self, *, port: int = 0, **settings: object) -> None:
        ssh = LabSource().locate(inventory.read(self.lab.inventory))["n1"].ssh
        host = {"ssh_hostname": ssh.hostname, "ssh_user": ssh.user, "ssh_key": str(ssh.key)}
        host |= {"ssh_host_key": ssh.host_key}
        proxy = f"http://{self.gateway}:{port or self.server.port}"
        given = {"name": "own", "proxy": {"http": proxy, "https": proxy}, **settings}
        (self.home / "own.py").write_text(
            f"cluster = {given!r}\nmasters = [('n1', {host!r})]\nworkers = ['n1']\n"
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("operator")
    local, images = publishers.programs_of_this_computer(ARCH)
    release = publishers.release(local, ARCH, tmp_path_factory.mktemp("release"), images)
    command = publishers.copy_of_clusterctl(tmp_path_factory.mktemp("clusterctl"), release.hashes)
    server = Publishers(home, dict(release.files), release.storage)
    try:
        for lab in cluster("download"):
            lab.clusterctl("machines up")
            gateway = lab.on("n1", "ip -4 route show default").split()[2]
            site = Site(lab, server, release, tuple(command), home, gateway)
            # As an organisation whose proxy looks into TLS does.
            lab.on(
                "n1",
                f"cat >{CERTIFICATES}/proxy.crt && update-ca-certificates",
                stdin=server.authority.read_text(),
            )
            yield site
    finally:
        server.close()


def test_servers_that_do_not_answer_are_found_before_anything_is_touched(site: Site) -> None:
    for source in ("official", "auto"):
        site.write_inventory(port=9, artifacts={"source": source})
        done = site.clusterctl("up", "--yes")
        said = " ".join(done.stderr.split())
        assert done.returncode == 4, done.stderr
        assert "n1" in said
        silent = "dl.k8s.io, docker.io, github.com, registry.k8s.io"
        assert f"gets no answer from {silent}, nor from a mirror" in said
        assert f"through the proxy http://{site.gateway}:9" in said
        assert "clusterctl ssh" in said
    places = f"{paths.STATE} {paths.KUBERNETES} {paths.BIN}/*"
    assert site.lab.on("n1", f"ls -d {places} 2>/dev/null; true") == ""


def test_published_files_and_images_become_a_verified_cluster_and_nothing_is_compiled(
    site: Site,
) -> None:
    site.write_inventory(artifacts={"source": "official"})
    site.server.faults[KUBELET] = ["cut"]
    site.server.asked.clear()

    done = site.clusterctl("up", "--yes")

    assert done.returncode == 0, done.stderr
    assert "verify: done" in done.stderr
    assert "compil" not in done.stdout + done.stderr
    assert not (site.home / "cache" / "clusterctl" / "builds").exists()
    # The machine downloads, each file once; one that was cut off once more.
    files = [path for path in site.server.got("/") if "/v2/" not in path]
    assert {path: files.count(path) for path in set(files) if files.count(path) > 1} == {KUBELET: 2}
    sums = site.lab.on("n1", "cd /usr/local/bin && sha256sum kubelet kube-apiserver").split()
    assert sums[0] == publishers.sha256(site.release.files[KUBELET])
    # All images come from the registries, the add-ons' by digest.
    pulled = {path.split("/")[1] for path in site.server.got("/v2/")}
    assert pulled == {"registry.k8s.io", "docker.io"}
    shown = site.clusterctl("kubectl", "--", "get", "pods", "-A", "-o", "yaml").stdout
    for image in ("coredns/coredns:v1.14.6", "metrics-server/metrics-server:v0.9.0"):
        assert f"image: registry.k8s.io/{image}@sha256:" in shown


def test_a_second_run_changes_nothing(site: Site) -> None:
    done = site.clusterctl("up", "--yes")
    assert "nothing to change" in done.stdout, done.stderr
    assert site.clusterctl("verify").returncode == 0
