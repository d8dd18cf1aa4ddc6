"""`artifacts lock`, as a user types it, against a mirror with the publishers' hosts and paths.

The signatures are real: the test has its own Sigstore. Sigstore's own library verifies them.
"""

import hashlib
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision.artifacts.catalogue import ARCHES, DATA, Catalogue
from tests.signer import Sigstore

CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
VERSION, NEWEST = "1.99.0", "1.37.1"
KUBERNETES = ("krel-staging@k8s-releng-prod.iam.gserviceaccount.com", "https://accounts.google.com")
GITHUB = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/containerd/containerd/.github/workflows/release.yml@refs/tags/v2.4.1"
REKOR = "/rekor.sigstore.dev/api/v1/log/entries/retrieve"
ETCD = "/github.com/etcd-io/etcd/releases/download/v3.7.1"
CONTAINERD = "/github.com/containerd/containerd/releases/download/v2.4.1"


def unlocked(text, *components):
    """The catalogue's text without the checksums of these components."""
    for component in components:
        before, heading, after = re.split(rf"^({component}:\n)", text, maxsplit=1, flags=re.M)
        sums = r"    sha256:\n(      .*\n)+"
        text = before + heading + re.sub(sums, "    sha256: {}\n", after, count=1)
    return text


UNLOCKED = unlocked(DATA.read_text(), "etcd", "containerd")


class Mirror:
    """Everything that the publishers have for a release. `files`: /HOST/PATH -> content."""

    def __init__(self):
        self.sigstore, self.files = Sigstore(), {}
        for arch in ARCHES:
            for name in Catalogue.read().kubernetes[NEWEST].names:
                self.publish(f"/dl.k8s.io/v{VERSION}/bin/linux/{arch}/{name}", KUBERNETES)
            self.publish_containerd(f"{CONTAINERD}/containerd-static-2.4.1-linux-{arch}.tar.gz")
        archives = [f"{ETCD}/etcd-v3.7.1-linux-{arch}.tar.gz" for arch in ARCHES]
        for path in archives:
            self.files[path] = path.encode() * 100
        lines = [f"{self.sha256(path)}  {path.rpartition('/')[2]}\n" for path in archives]
        self.files[f"{ETCD}/SHA256SUMS"] = "".join(lines).encode()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self, outer.files.get(self.path))

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                known = self.path == REKOR
                found = json.dumps(outer.sigstore.retrieve(asked)).encode() if known else None
                outer.answer(self, found)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def answer(request, content):
        if content is None:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def sha256(self, path):
        return hashlib.sha256(self.files[path]).hexdigest()

    def publish(self, path, signer):
        self.files[path] = path.encode() * 100
        self.files[f"{path}.sha256"] = self.sha256(path).encode()
        signed = self.sigstore.detached(self.files[path], *signer)
        self.files[f"{path}.sig"], self.files[f"{path}.cert"] = signed

    def publish_containerd(self, path, signer=WORKFLOW, about=""):
        self.files[path] = path.encode() * 100
        digest = self.sha256(path)
        self.files[f"{path}.sha256sum"] = f"{digest}  {path.rpartition('/')[2]}\n".encode()
        bundle = self.sigstore.attested(about or digest, signer, GITHUB)
        where = f"/api.github.com/repos/containerd/containerd/attestations/sha256:{digest}"
        self.files[where] = json.dumps({"attestations": [{"bundle": bundle}]}).encode()


@pytest.fixture(scope="module")
def published():
    mirror = Mirror()
    yield mirror
    mirror.server.shutdown()
    mirror.server.server_close()


@pytest.fixture
def mirror(published):
    """The mirror. After each test, its files are as before."""
    before = dict(published.files)
    yield published
    published.files = before


@pytest.fixture
def catalogue(tmp_path):
    path = tmp_path / "catalogue.yaml"
    path.write_text(UNLOCKED)
    return path


def lock(mirror, catalogue, version=VERSION, root=None):
    trusted = catalogue.with_name("trusted_root.json")
    trusted.write_text(json.dumps((root or mirror.sigstore).trusted_root()))
    return subprocess.run(
        [
            *(CLUSTERCTL, "artifacts", "lock", "--kubernetes", version),
            *("--catalogue", catalogue, "--mirror", mirror.base, "--trusted-root", trusted),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(catalogue.parent), "COLUMNS": "200"},
    )


def refused(done, catalogue):
    assert done.returncode == 7, done.stdout + done.stderr
    assert catalogue.read_text() == UNLOCKED
    return re.sub(r"\s+", " ", done.stderr)


def test_a_version_is_added_with_all_that_it_lacks_and_nothing_else_is_touched(mirror, catalogue):
    done = lock(mirror, catalogue)
    assert done.returncode == 0, done.stderr
    assert KUBERNETES[0] in done.stdout
    assert "not signed" in done.stdout

    before, after = Catalogue.parse(UNLOCKED), Catalogue.read(catalogue)
    assert after.sets[VERSION] == before.sets[NEWEST]
    for pin in after.pins(VERSION).values():
        known = before.pins(NEWEST)[pin.name, pin.arch]
        of_kubernetes = pin.name.startswith("kubernetes/")
        if known.sha256 and not of_kubernetes:
            assert pin == known
        else:
            assert pin.sha256 == mirror.sha256(pin.url.removeprefix("https:/"))
            assert pin.member == known.member
    for version in before.versions:
        for key, pin in before.pins(version).items():
            assert after.pins(version)[key].sha256 == pin.sha256 or not pin.sha256
    removed = set(UNLOCKED.splitlines()) - set(catalogue.read_text().splitlines())
    assert removed == {"    sha256: {}"}

    again = lock(mirror, catalogue)
    assert again.returncode == 0
    assert "already has all checksums" in again.stdout


def test_a_file_that_is_not_what_was_signed_is_refused_though_its_checksum_is_right(
    mirror, catalogue
):
    kubelet = f"/dl.k8s.io/v{VERSION}/bin/linux/arm64/kubelet"
    mirror.files[kubelet] += b"and something else"
    mirror.files[f"{kubelet}.sha256"] = mirror.sha256(kubelet).encode()
    message = refused(lock(mirror, catalogue), catalogue)
    assert (
        f"{kubelet.rpartition('/')[2]}: the transparency log does not have its signature" in message
    )


def test_a_file_that_is_not_what_its_checksum_says_is_refused(mirror, catalogue):
    path = f"{ETCD}/etcd-v3.7.1-linux-arm64.tar.gz"
    mirror.files[path] += b"more"
    message = refused(lock(mirror, catalogue), catalogue)
    assert f"has SHA-256 {mirror.sha256(path)}" in message
    assert "SHA256SUMS says" in message


def test_a_signature_of_another_publisher_is_refused(mirror, catalogue):
    kubelet = f"/dl.k8s.io/v{VERSION}/bin/linux/amd64/kubelet"
    mirror.publish(kubelet, ("somebody@example.org", "https://accounts.google.com"))
    message = refused(lock(mirror, catalogue), catalogue)
    assert "SANs do not match krel-staging@" in message


def test_the_right_name_from_another_issuer_is_refused(mirror, catalogue):
    kubelet = f"/dl.k8s.io/v{VERSION}/bin/linux/amd64/kubelet"
    mirror.publish(kubelet, (KUBERNETES[0], "https://accounts.example.org"))
    assert "issuer" in refused(lock(mirror, catalogue), catalogue).lower()


def test_signatures_under_another_root_of_trust_are_refused(mirror, catalogue):
    refused(lock(mirror, catalogue, root=Sigstore()), catalogue)


def test_an_attestation_about_another_file_or_by_another_workflow_is_refused(mirror, catalogue):
    path = f"{CONTAINERD}/containerd-static-2.4.1-linux-amd64.tar.gz"
    mirror.publish_containerd(path, about="ab" * 32)
    assert "it is about another file" in refused(lock(mirror, catalogue), catalogue)
    mirror.publish_containerd(path, signer=WORKFLOW.replace("v2.4.1", "v2.4.0"))
    assert "SANs do not match" in refused(lock(mirror, catalogue), catalogue)


def test_a_file_that_is_not_there_is_named(mirror, catalogue):
    del mirror.files[f"/dl.k8s.io/v{VERSION}/bin/linux/amd64/kubectl.sig"]
    message = refused(lock(mirror, catalogue), catalogue)
    assert "kubectl.sig: the server answered 404" in message
