"""The programs of `provision.apply.delivery`, run locally with another directory and port."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest
import zstandard

from provision.apply import delivery_programs
from provision.apply.delivery_programs import Want
from provision.apply.operations.deliver import COMMAND
from provision.artifacts.model import Ready
from provision.model import paths, ports
from provision.model.settings.network import HttpProxy

pytestmark = pytest.mark.skipif(
    not shutil.which("zstd") or not shutil.which("systemd-socket-activate"),
    reason="needs zstd and systemd-socket-activate",
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Place:
    """A directory and a port that stand in for a machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.state = root / "state"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        (self.state / "artifacts").mkdir(parents=True)

    def here(self, text: str) -> str:
        text = text.replace(f"/{ports.ARTIFACTS}", f"/{self.port}")
        return text.replace(paths.STATE, str(self.state))

    def take(
        self, *items, proxy: HttpProxy | None = None, stalled: int = delivery_programs.STALLED
    ) -> subprocess.CompletedProcess[str]:
        """Run the program that takes items. `stalled`: seconds that it waits without new data."""
        program = delivery_programs.program(items, "127.0.0.1", proxy or HttpProxy())
        program = program.replace(f"stalled={delivery_programs.STALLED}\n", f"stalled={stalled}\n")
        return subprocess.run(
            ["sh", "-c", COMMAND],
            input=self.here(program),
            check=False,
            capture_output=True,
            text=True,
        )

    def serve(self) -> subprocess.Popen[bytes]:
        script = self.root / "serve"
        script.write_text(self.here(delivery_programs.SERVE))
        process = subprocess.Popen(
            ["systemd-socket-activate", "--accept", "--inetd",
             f"--listen=127.0.0.1:{self.port}", "/bin/bash", script],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            time.sleep(0.02)

    def receive(self, *sent: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", self.here(delivery_programs.RECEIVE)],
            input=b"".join(sent),
            check=False,
            capture_output=True,
        )

    def artifact(self, name: str, content: bytes, version: str = "1.0"):
        file = self.root / f"local-{name}"
        file.write_bytes(content)
        ready = Ready(name, version, "amd64", sha256(content), local=file)
        return ready, Want(name, str(self.bin / name), "amd64")

    @property
    def record(self) -> dict[tuple[str, str], list[str]]:
        lines = (self.state / "record/artifacts").read_text().splitlines()
        rows = [line.split("\t") for line in lines]
        assert len({tuple(row[:2]) for row in rows}) == len(rows)
        return {(row[0], row[1]): row[2:] for row in rows}

    @property
    def left(self) -> list[str]:
        return [p.name for p in self.bin.glob("*") if ".clusterctl-new" in p.name] + [
            p.name for p in self.state.iterdir() if p.name.startswith("take.")
        ]


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    assert place.left == []


@pytest.fixture
def seed(place):
    server = place.serve()
    yield place
    server.terminate()
    server.wait()


def packed(content: bytes, pin: str = "") -> bytes:
    data = zstandard.compress(content)
    return f"{pin or sha256(content)} {len(data)}\n".encode() + data


def test_what_was_received_is_served_verified_installed_and_recorded(seed):
    big, small = os.urandom(3_000_000), b"#!/bin/sh\n"
    items = seed.artifact("kubelet", big, "1.36.3"), seed.artifact("runc", small)

    received = seed.receive(packed(big), packed(small))
    done = seed.take(*items)

    assert received.returncode == 0, received.stderr
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["clusterctl: kubelet", "clusterctl: runc"]
    assert (seed.bin / "kubelet").read_bytes() == big
    assert (seed.bin / "runc").stat().st_mode & 0o777 == 0o755
    stat = (seed.bin / "kubelet").stat()
    assert seed.record[("binary", str(seed.bin / "kubelet"))] == [
        sha256(big), "1.36.3", sha256(big),
        str(stat.st_size), str(stat.st_ino), str(int(stat.st_mtime)), str(int(stat.st_ctime)),
    ]  # fmt: skip
    assert ("dir", str(seed.bin)) in seed.record


def test_a_machine_that_asks_before_the_seed_has_it_waits_for_it(seed):
    content = os.urandom(100_000)
    item = seed.artifact("kubelet", content)
    late = threading.Timer(0.7, lambda: seed.receive(packed(content)))
    began = time.monotonic()
    late.start()

    done = seed.take(item)

    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began > 0.6
    assert (seed.bin / "kubelet").read_bytes() == content


def test_a_wrong_hash_installs_nothing_and_names_file_expected_and_got(seed):
    right, wrong = b"right", b"wrong"
    item = seed.artifact("kubelet", right)
    seed.bin.mkdir()
    (seed.bin / "kubelet").write_bytes(b"old")
    seed.receive(packed(wrong, sha256(right)))

    done = seed.take(item)

    assert done.returncode == 1
    assert f"kubelet: expected SHA-256 {sha256(right)}, got {sha256(wrong)}" in done.stderr
    assert (seed.bin / "kubelet").read_bytes() == b"old"
    assert not (seed.state / "record/artifacts").exists()


def test_a_transfer_that_breaks_off_installs_nothing(seed):
    content = os.urandom(100_000)
    item = seed.artifact("kubelet", content)
    data = zstandard.compress(content)[:50_000]
    seed.receive(f"{sha256(content)} {len(data)}\n".encode() + data)

    done = seed.take(item)

    assert done.returncode == 1
    assert "kubelet: the copy from 127.0.0.1 broke off" in done.stderr
    assert not (seed.bin / "kubelet").exists()


@pytest.mark.parametrize("kept", [1, 40, 400])
def test_a_program_that_was_cut_off_on_its_way_is_not_begun(place, kept):
    """If the connection breaks, the line `place PATH PIN` may end in the middle of the pin."""
    program = place.here(
        delivery_programs.program([place.artifact("kubelet", b"x")], "/seed", HttpProxy())
    )

    done = subprocess.run(
        ["sh", "-c", COMMAND], input=program[:-kept], check=False, capture_output=True, text=True
    )

    assert done.returncode != 0
    assert done.stdout == ""
    assert not (place.state / "record").exists()


def test_a_push_that_is_cut_off_is_never_served(seed):
    content = os.urandom(100_000)

    received = seed.receive(packed(content)[:-1])

    assert received.returncode == 1
    assert b"was cut off" in received.stderr
    assert not list((seed.state / "artifacts").glob("*.zst"))


def test_the_seed_serves_nothing_but_files_asked_for_by_hash(seed):
    (seed.state / "secret").write_text("hunter2")
    for question in (b"../secret\n", b"\n", b"/etc/passwd\n", b"a" * 63 + b"\n", b"a" * 65 + b"\n"):
        with socket.create_connection(("127.0.0.1", seed.port)) as connection:
            connection.sendall(question)
            connection.settimeout(5)
            assert connection.recv(100) == b""


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"", "127.0.0.1 does not answer"),
        (b"\n\n", "127.0.0.1 does not answer"),
        (b"begin\n" + zstandard.compress(b"kubelet")[:-1], "the copy from 127.0.0.1 broke off"),
    ],
)
def test_a_seed_that_lost_its_power_is_given_up(place, said, message):
    item = place.artifact("kubelet", b"kubelet")
    silent = []

    def listen():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            silent.append(connection)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", place.port)) as server:
        threading.Thread(target=listen, daemon=True).start()
        began = time.monotonic()
        done = place.take(item, stalled=1)
        server.shutdown(socket.SHUT_RDWR)

    assert time.monotonic() - began < 10
    assert done.returncode == 1
    assert message in done.stderr
    assert not (place.bin / "kubelet").exists()
    assert len(silent) == 2  # one of them from `reach`


def test_a_machine_waits_for_a_seed_that_still_waits_itself(seed):
    content = os.urandom(100_000)
    item = seed.artifact("kubelet", content)
    late = threading.Timer(3, lambda: seed.receive(packed(content)))
    late.start()

    done = seed.take(item, stalled=1)

    assert done.returncode == 0, done.stderr


def test_an_unreachable_seed_is_reported_and_fails_nothing(place):
    done = place.take(place.artifact("kubelet", b"x"))

    assert (done.returncode, done.stdout) == (0, "clusterctl-unreachable\n")


def test_the_record_keeps_other_lines_and_replaces_the_same_path(seed):
    (seed.state / "record").mkdir()
    (seed.state / "record/artifacts").write_text(
        f"binary\t/opt/other\tp\t1\ts\t1\t1\t1\t1\nbinary\t{seed.bin}/runc\told\t0\ts\t1\t1\t1\t1\nimages\tpin\n"
    )
    seed.receive(packed(b"new"))

    seed.take(seed.artifact("runc", b"new", "2.0"))

    assert seed.record[("binary", "/opt/other")][0] == "p"
    assert seed.record[("binary", f"{seed.bin}/runc")][:2] == [sha256(b"new"), "2.0"]
    assert ("images", "pin") in seed.record


def test_a_running_binary_is_replaced(seed):
    sleep = Path(shutil.which("sleep") or "").read_bytes()
    seed.bin.mkdir()
    (seed.bin / "sleep").write_bytes(sleep)
    (seed.bin / "sleep").chmod(0o755)
    running = subprocess.Popen([seed.bin / "sleep", "30"])
    seed.receive(packed(sleep + b"\0"))

    done = seed.take(seed.artifact("sleep", sleep + b"\0"))

    assert done.returncode == 0, done.stderr
    assert running.poll() is None
    running.kill()
    running.wait()


def test_images_are_merged_into_the_registry_and_recorded(seed):
    tree = seed.root / "tree/docker/registry/v2"
    tree.mkdir(parents=True)
    (tree / "blob").write_text("layer")
    archive = seed.root / "images.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(seed.root / "tree/docker", "docker")
    registry = seed.state / "registry"
    (registry / "docker/registry/v2").mkdir(parents=True)
    (registry / "docker/registry/v2/users-own").write_text("kept")
    content = archive.read_bytes()
    ready = Ready("images", "1", "amd64", sha256(content), local=archive)
    seed.receive(packed(content))

    done = seed.take((ready, Want("images", str(registry), "amd64")))

    assert done.returncode == 0, done.stderr
    assert (registry / "docker/registry/v2/blob").read_text() == "layer"
    assert (registry / "docker/registry/v2/users-own").read_text() == "kept"
    assert ("images", ready.pin) in seed.record


class Site:
    """An HTTP server with a directory's files, and some paths that misbehave."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.ended = threading.Event()
        site = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self):
                site.asked.append(self.path)
                if self.path == "/short":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b"x" * 10)
                    return
                if self.path == "/stalled":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b"x" * 10)
                    site.ended.wait()
                    return
                if self.path == "/steady":
                    self.send_response(200)
                    self.send_header("Content-Length", "80000")
                    self.end_headers()
                    for _ in range(8):
                        time.sleep(0.3)
                        self.wfile.write(b"x" * 10_000)
                    return
                super().do_GET()

            def log_message(self, *_): ...

        handler = functools.partial(Handler, directory=str(root))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{path}"


@pytest.fixture
def site(tmp_path):
    root = tmp_path / "site"
    root.mkdir()
    site = Site(root)
    yield site
    site.ended.set()
    site.server.shutdown()
    site.server.server_close()


def remote(place: Place, site: Site, name: str, path: str, pin: str, member: str | None = None):
    ready = Ready(name, "1.0", "amd64", pin, url=site.url(path), member=member)
    return ready, Want(name, str(place.bin / name), "amd64")


needs_download = pytest.mark.skipif(
    not (shutil.which("curl") or shutil.which("wget")), reason="needs curl or wget"
)


@needs_download
def test_a_machine_downloads_and_installs_by_itself_an_archive_only_once(place, site):
    (site.root / "kubelet").write_bytes(b"kubelet")
    (site.root / "ctr").write_bytes(b"ctr")
    with tarfile.open(site.root / "c.tgz", "w:gz") as tar:
        tar.add(site.root / "ctr", "bin/ctr")
        tar.add(site.root / "kubelet", "bin/containerd")
    pin = sha256((site.root / "c.tgz").read_bytes())

    done = place.take(
        remote(place, site, "kubelet", "kubelet", sha256(b"kubelet")),
        remote(place, site, "ctr", "c.tgz", pin, "bin/ctr"),
        remote(place, site, "containerd", "c.tgz", pin, "bin/containerd"),
    )

    assert (done.returncode, done.stdout.split()[1::2]) == (0, ["kubelet", "ctr", "containerd"])
    assert (place.bin / "ctr").read_bytes() == b"ctr"
    assert (place.bin / "containerd").read_bytes() == b"kubelet"
    assert place.record[("binary", str(place.bin / "ctr"))][:3] == [pin, "1.0", sha256(b"ctr")]
    assert site.asked == ["/kubelet", "/c.tgz"]


@needs_download
@pytest.mark.parametrize(
    ("path", "member", "message"),
    [
        ("kubelet", None, "expected SHA-256 {pin}, got {got}"),
        ("none", None, "could not be downloaded"),
        ("short", None, "could not be downloaded"),
        ("c.tgz", "bin/none", "has no bin/none"),
    ],
)
def test_a_bad_download_installs_nothing_and_says_which(place, site, path, member, message):
    (site.root / "kubelet").write_bytes(b"kubelet")
    with tarfile.open(site.root / "c.tgz", "w:gz") as tar:
        tar.add(site.root / "kubelet", "bin/ctr")
    pin = sha256((site.root / path).read_bytes()) if member else sha256(b"another")

    done = place.take(remote(place, site, "kubelet", path, pin, member))

    assert done.returncode == 1
    assert site.url(path) in done.stderr
    assert message.format(pin=pin, got=sha256(b"kubelet")) in done.stderr
    assert not (place.bin / "kubelet").exists()


@needs_download
def test_a_download_that_stalls_is_tried_again_and_given_up(place, site):
    began = time.monotonic()
    done = place.take(remote(place, site, "kubelet", "stalled", "a" * 64), stalled=1)

    assert time.monotonic() - began < 30
    assert done.returncode == 1
    assert f"{site.url('stalled')} could not be downloaded" in done.stderr
    assert site.asked == ["/stalled"] * 3


@needs_download
def test_a_slow_download_that_keeps_sending_is_not_given_up(place, site):
    done = place.take(remote(place, site, "kubelet", "steady", sha256(b"x" * 80_000)), stalled=1)

    assert done.returncode == 0, done.stderr
    assert (place.bin / "kubelet").read_bytes() == b"x" * 80_000
    assert site.asked == ["/steady"]


@needs_download
def test_downloads_go_through_the_proxy(place, site):
    (site.root / "f").write_bytes(b"f")
    ready = Ready("f", "1", "amd64", sha256(b"f"), url="http://upstream.invalid/f")

    done = place.take(
        (ready, Want("f", str(place.bin / "f"), "amd64")), proxy=HttpProxy(http=site.url(""))
    )

    assert "http://upstream.invalid/f" in site.asked[0], done.stderr
