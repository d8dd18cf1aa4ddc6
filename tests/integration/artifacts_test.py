"""Real artifacts: downloaded from upstream's paths, built by Go, served by a registry."""

import hashlib
import io
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from provision.artifacts import fetch, open_bundle, prepare, write_bundle
from provision.artifacts import go as go_tool
from provision.artifacts.catalogue import Catalogue
from provision.artifacts.download import Http
from provision.artifacts.images import TABLE, TOOLS
from provision.artifacts.oci import split_reference
from provision.artifacts.recipes import RECIPES, UNPUBLISHED
from provision.desired import proxy_flags
from provision.local.progress import Silent
from provision.model.errors import ArtifactError
from provision.model.settings.components import KUBERNETES_DEFAULT, ArtifactsSource

ARCH = go_tool.machine_arch()
KUBELET = "/v1.36.3/bin/linux/amd64/kubelet"
CNI = "/containernetworking/plugins/releases/download/v1.9.1/cni-plugins-linux-amd64-v1.9.1.tgz"
QUICK = Http(timeout=1, attempts=2, pause=0.05)
WANTED = [
    ("kubernetes/kubelet", "amd64"),
    ("cni-plugins/bridge", "amd64"),
    ("cni-plugins/portmap", "amd64"),
]


class Notes(Silent):
    def __init__(self):
        self.notes, self.updates, self.phases, self.failed = [], [], [], []

    def phase(self, name, summary, subjects):
        self.phases.append((name, subjects))
        return nullcontext()

    def update(self, subject, text):
        self.updates.append((subject, text))

    def done(self, subject, text="", *, failed=False):
        if failed:
            self.failed.append(subject)

    def note(self, text):
        self.notes.append(text)


def tgz(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Upstream:
    """An HTTP server with upstream's paths. `faults`: path -> errors, one for each request."""

    def __init__(self):
        self.files = {
            KUBELET: b"kubelet" * 300_000,
            CNI: tgz({"bridge": b"bridge!" * 1000, "portmap": b"portmap" * 1000}),
        }
        self.faults, self.asked = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                outer.answer(self, body=False)

            def do_GET(self):
                outer.answer(self, body=True)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request, *, body):
        self.asked.append(request.path)
        content = self.files.get(request.path)
        queue = self.faults.get(request.path, [])
        fault = queue.pop(0) if queue else None
        if content is None or isinstance(fault, int):
            request.send_error(fault or 404)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if not body:
            return
        if fault == "cut":
            content = content[:1000]
        elif fault == "slow":
            request.wfile.write(content[:1000])
            request.wfile.flush()
            time.sleep(3)
        elif fault == "steady":
            for start in range(0, len(content) - 1, len(content) // 7):
                request.wfile.write(content[start : start + len(content) // 7])
                request.wfile.flush()
                time.sleep(0.2)
            return
        elif fault == "wrong":
            content = b"X" + content[1:]
        request.wfile.write(content)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def upstream():
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    # Go keeps its own cache: otherwise each test compiles Go's standard library.
    own = subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True, check=False)
    monkeypatch.setenv("GOCACHE", own.stdout.strip())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clusterctl"


@pytest.fixture
def known(upstream, tmp_path):
    """A catalogue of small files. Their URLs belong to the test server."""
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in upstream.files.items()}
    path = tmp_path / "catalogue.yaml"
    path.write_text(
        json.dumps(
            {
                "sets": {"1.36.3": {"cni-plugins": "1.9.1"}},
                "kubernetes": {
                    "1.36.3": {
                        "url": f"http://{upstream.host}/v{{version}}/bin/linux/{{arch}}/{{name}}",
                        "sha256": {"kubelet": {"amd64": sums[KUBELET]}},
                    }
                },
                "cni-plugins": {
                    "1.9.1": {
                        "url": f"http://{upstream.host}{CNI}",
                        "members": {"bridge": "bridge", "portmap": "portmap"},
                        "sha256": {"amd64": sums[CNI]},
                    }
                },
            }
        )
    )
    return Catalogue.read(path)


def official(known, progress=None, source="official", *, make=True, **settings):
    given = ArtifactsSource(source=source, **settings)
    return prepare(given, "1.36.3", WANTED, progress or Silent(), known, make=make)


def kept(home):
    return [p for p in home.rglob("*") if p.is_file() and p.name != "lock"]


def test_official_tells_machines_where_to_download_and_asks_for_nothing(known, upstream):
    ready = official(known)
    assert ready.source == "official"
    kubelet = ready.get("kubernetes/kubelet", "amd64")
    assert kubelet.url == f"http://{upstream.host}{KUBELET}"
    assert kubelet.local is None
    assert kubelet.pin == hashlib.sha256(upstream.files[KUBELET]).hexdigest()
    assert ready.get("cni-plugins/bridge", "amd64").member == "bridge"
    assert upstream.asked == []


def test_unpublished_artifacts_are_built_while_others_are_downloaded(known):
    told = []
    progress = Silent()
    progress.note = told.append
    (alone,) = UNPUBLISHED
    given = ArtifactsSource(source="auto")
    wanted = (*WANTED, (alone, "amd64"))
    ready = prepare(given, "1.36.3", wanted, progress, known, make=False)
    assert ready.get("kubernetes/kubelet", "amd64").url
    assert ready.get(alone, "amd64").url is None
    assert [line for line in told if alone in line]


def test_fetch_brings_the_programs_themselves_and_each_archive_once(known, upstream, empty_cache):
    ready = fetch(official(known), Silent(), QUICK)
    bridge = ready.get("cni-plugins/bridge", "amd64")
    assert bridge.local.read_bytes() == b"bridge!" * 1000
    assert bridge.pin == hashlib.sha256(b"bridge!" * 1000).hexdigest()
    assert bridge.url is None
    assert os.access(bridge.local, os.X_OK)
    assert ready.get("kubernetes/kubelet", "amd64").local.read_bytes() == upstream.files[KUBELET]
    assert sorted(upstream.asked) == sorted([KUBELET, CNI])
    fetch(official(known), Silent(), QUICK)
    assert len(upstream.asked) == 2


def test_a_mirror_has_the_publishers_host_and_path_under_its_own(known, upstream, empty_cache):
    for path in (KUBELET, CNI):
        upstream.files[f"/mirror/{upstream.host}{path}"] = upstream.files.pop(path)
    ready = official(known, source="mirror", mirror=f"http://{upstream.host}/mirror/")
    assert ready.source == "mirror"
    fetch(ready, Silent(), QUICK)
    assert f"/mirror/{upstream.host}{KUBELET}" in upstream.asked


@pytest.mark.parametrize(
    ("faults", "reason", "asked"),
    [
        ([404], "the server answered 404", 1),
        ([500, 500], "the server answered 500", 2),
        (["cut", "cut"], r"cut off after 1000 of 2100000 bytes", 2),
        (["slow", "slow"], r"no answer for 1 s", 2),
    ],
    ids=["missing", "broken", "cut off", "slow"],
)
def test_a_download_that_fails_says_which_and_why_and_keeps_nothing(
    known, upstream, empty_cache, faults, reason, asked
):
    upstream.faults[KUBELET] = faults
    progress = Notes()
    with pytest.raises(ArtifactError, match=reason) as caught:
        fetch(official(known), progress, QUICK)
    assert f"http://{upstream.host}{KUBELET}" in caught.value.message
    assert hashlib.sha256(upstream.files[KUBELET]).hexdigest() in caught.value.message
    assert caught.value.hint
    assert upstream.asked.count(KUBELET) == asked
    assert progress.failed == ["kubelet amd64"]
    assert kept(empty_cache) == []


def test_a_wrong_hash_is_final_and_names_both(known, upstream, empty_cache):
    upstream.faults[KUBELET] = ["wrong"]
    with pytest.raises(ArtifactError, match="wrong hash") as caught:
        fetch(official(known), Silent(), QUICK)
    right = upstream.files[KUBELET]
    assert f"expected SHA-256 {hashlib.sha256(right).hexdigest()}" in caught.value.message
    assert f"got {hashlib.sha256(b'X' + right[1:]).hexdigest()}" in caught.value.message
    assert upstream.asked == [KUBELET]
    assert kept(empty_cache) == []


@pytest.mark.parametrize("fault", [500, "cut", "slow"])
def test_a_passing_fault_is_tried_again(known, upstream, empty_cache, fault):
    upstream.faults[KUBELET] = [fault]
    ready = fetch(official(known), Silent(), QUICK)
    assert ready.get("kubernetes/kubelet", "amd64").local.read_bytes() == upstream.files[KUBELET]


def test_a_slow_server_that_keeps_sending_is_not_given_up(known, upstream, empty_cache):
    upstream.faults[KUBELET] = ["steady"]
    began = time.monotonic()
    ready = fetch(official(known), Silent(), QUICK)
    assert time.monotonic() - began > QUICK.timeout
    assert ready.get("kubernetes/kubelet", "amd64").local.read_bytes() == upstream.files[KUBELET]
    assert upstream.asked.count(KUBELET) == 1


def test_a_server_that_is_not_there_is_named(known, upstream, empty_cache):
    upstream.close()
    with pytest.raises(ArtifactError, match="refused"):
        fetch(official(known), Silent(), QUICK)


def test_an_archive_without_the_program_is_refused(known, upstream, empty_cache):
    content = upstream.files[CNI] = tgz({"bridge": b"bridge"})
    digest = hashlib.sha256(content).hexdigest()
    release = known.components["cni-plugins"]["1.9.1"]
    release.sha256["amd64"] = digest
    with pytest.raises(ArtifactError, match="has no portmap in it"):
        fetch(official(known), Silent(), QUICK)


def test_a_bundle_of_official_files_is_downloaded_first(known, upstream, empty_cache, tmp_path):
    path = write_bundle(official(known), tmp_path / "bundle.tar.zst")
    upstream.close()
    shutil.rmtree(empty_cache)
    opened = open_bundle(path)
    assert opened.get("cni-plugins/portmap", "amd64").local.read_bytes() == b"portmap" * 1000
    chosen = official(known, source="bundle", bundle=path)
    assert chosen.items.keys() == set(WANTED)


def test_auto_is_official_where_the_publisher_answers(known, upstream):
    progress = Notes()
    assert official(known, progress, source="auto").source == "official"
    assert progress.notes == []


def test_auto_compiles_everything_where_no_publisher_answers_and_says_why(known, upstream):
    upstream.close()
    progress = Notes()
    ready = official(known, progress, source="auto")
    assert ready.source == "build"
    assert ready.get("cni-plugins/bridge", "amd64").local.stat().st_size > 1 << 20
    (note,) = progress.notes
    assert note.startswith("artifacts: everything is compiled here, because 127.0.0.1:")
    assert "did not answer within 3 s" in note


def test_auto_keeps_what_machines_have_if_its_publisher_is_silent_or_answers_again(known, upstream):
    def pins(ready):
        return frozenset(item.pin for item in ready.items.values())

    auto = ArtifactsSource(source="auto")
    compiled = official(known, source="build")
    downloaded = official(known)

    stays = prepare(auto, "1.36.3", WANTED, Silent(), known, installed=pins(compiled))
    assert (stays.source, stays.items) == ("build", compiled.items)

    upstream.close()
    stays = prepare(auto, "1.36.3", WANTED, Silent(), known, installed=pins(downloaded))
    assert (stays.source, stays.items) == ("official", downloaded.items)


def test_auto_keeps_what_came_over_this_computer_and_asks_for_nothing(known, upstream, empty_cache):
    fetched = fetch(official(known), Silent(), QUICK)
    installed = frozenset(item.pin for item in fetched.items.values())
    asked = list(upstream.asked)
    upstream.close()

    ready = prepare(ArtifactsSource(), "1.36.3", WANTED, Silent(), known, installed=installed)
    assert ready.source == "official"
    assert fetch(ready, Silent(), QUICK) == fetched
    assert upstream.asked == asked


@pytest.mark.parametrize("state", ["hangs", "unpinned"])
def test_auto_compiles_only_the_files_that_it_cannot_download(known, upstream, state):
    silent = socket.create_server(("127.0.0.1", 0))
    release = known.kubernetes["1.36.3"]
    if state == "hangs":
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{{arch}}/{{name}}"
        known = known.model_copy(
            update={"kubernetes": {"1.36.3": release.model_copy(update={"url": url})}}
        )
    else:
        release.sha256["kubelet"].clear()
    progress, started = Notes(), time.monotonic()
    ready = official(known, progress, source="auto", make=False)
    assert ready.source == "official"
    assert ready.get("cni-plugins/bridge", "amd64").url == f"http://{upstream.host}{CNI}"
    assert ready.get("kubernetes/kubelet", "amd64").url is None
    reason = {"unpinned": "no SHA-256 for the release files of kubernetes 1.36.3"}
    (note,) = progress.notes
    assert note.startswith("artifacts: kubernetes/kubelet is compiled here, because ")
    assert reason.get(state, "did not answer within 3 s") in note
    if state == "hangs":
        assert time.monotonic() - started >= 3
    silent.close()


def test_official_never_compiles(known):
    (alone,) = UNPUBLISHED
    with pytest.raises(ArtifactError, match=f"does not compile.*{alone}") as caught:
        prepare(ArtifactsSource(source="official"), "1.36.3", [(alone, "amd64")], Silent(), known)
    assert '"source": "auto"' in caught.value.hint


@pytest.fixture(scope="module")
def built():
    """Everything that a cluster needs, built, or taken from the user's cache."""
    binaries = ("kubernetes", "etcd", "containerd", "runc", "cni-plugins", "registry")
    names = [f"{c}/{program}" for c in binaries for program in RECIPES[c].packages]
    wanted = [(name, ARCH) for name in (*names, "images")]
    return prepare(ArtifactsSource(source="build"), KUBERNETES_DEFAULT, wanted, Silent())


def run(path, *arguments, **more):
    return subprocess.run(
        [path, *arguments], capture_output=True, text=True, timeout=30, check=False, **more
    )


def test_to_plan_a_first_installation_nothing_is_built(empty_cache):
    progress = Notes()
    wanted = [("kubernetes/kubelet", ARCH), ("runc/runc", ARCH), ("images", ARCH)]
    foreseen = prepare(ArtifactsSource(source="build"), "1.36.3", wanted, progress, make=False)
    assert set(foreseen.items) == set(wanted)
    assert foreseen.get("kubernetes/kubelet", ARCH).version == "1.36.3"
    assert progress.phases == []
    assert not empty_cache.exists()


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("kubernetes/kubelet", ["--version"], f"Kubernetes v{KUBERNETES_DEFAULT}"),
        ("kubernetes/kube-apiserver", ["--version"], f"Kubernetes v{KUBERNETES_DEFAULT}"),
        ("kubernetes/kubectl", ["version", "--client"], f"Client Version: v{KUBERNETES_DEFAULT}"),
        ("etcd/etcd", ["--version"], "etcd Version: 3.7.1"),
        ("etcd/etcdctl", ["version"], "etcdctl version: 3.7.1"),
        ("containerd/containerd", ["--version"], "containerd/v2 v2.4.1"),
        ("runc/runc", ["--version"], "runc version 1.5.2"),
        ("cni-plugins/bridge", ["--version"], "plugin v1.9.1"),
        ("registry/registry", ["--version"], "v3.1.2"),
    ],
)
def test_what_was_built_tells_its_version(built, name, arguments, expected):
    done = run(built.get(name, ARCH).local, *arguments)
    assert expected in done.stdout + done.stderr


# A value that is not the default, for each flag that becomes a field.
PROXY_FLAGS = {
    "bind-address": "127.0.0.1",
    "bind-address-hard-fail": "true",
    "config-sync-period": "10m",
    "conntrack-max-per-core": "5",
    "conntrack-min": "9",
    "conntrack-tcp-be-liberal": "true",
    "conntrack-tcp-timeout-close-wait": "2h",
    "conntrack-tcp-timeout-established": "3h",
    "conntrack-udp-timeout": "7s",
    "conntrack-udp-timeout-stream": "8s",
    "detect-local-mode": "BridgeInterface",
    "feature-gates": "ContextualLogging=false",
    "iptables-localhost-nodeports": "false",
    "iptables-masquerade-bit": "3",
    "iptables-min-sync-period": "2s",
    "iptables-sync-period": "45s",
    "kube-api-burst": "77",
    "kube-api-content-type": "application/json",
    "kube-api-qps": "12.5",
    "masquerade-all": "true",
    "metrics-bind-address": "0.0.0.0:10249",
    "nodeport-addresses": "10.0.0.0/8,192.0.2.0/24",
    "oom-score-adj": "-5",
    "pod-bridge-interface": "cni0",
    "pod-interface-name-prefix": "veth",
    "profiling": "true",
    "show-hidden-metrics-for-version": "1.36",
}


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_kube_proxy_makes_the_same_of_its_flags_and_of_our_fields(built, tmp_path, mode):
    """A second: kube-proxy itself writes down the configuration that it would use."""
    assert PROXY_FLAGS.keys() == proxy_flags.FLAGS
    given = {
        flag: value
        for flag, value in PROXY_FLAGS.items()
        if not proxy_flags.without_effect(mode, flag, value)
    }
    base = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(proxy_flags.merge(base | {"mode": mode}, mode, given)))

    def used(name, *arguments):
        answer = tmp_path / name
        program = built.get("kubernetes/kube-proxy", ARCH).local
        done = run(program, *arguments, f"--write-config-to={answer}")
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(answer.read_text())

    flags = [f"--{flag}={value}" for flag, value in given.items()]
    by_file = used("by-file", f"--config={file}")
    assert by_file == used("by-flags", f"--proxy-mode={mode}", *flags)
    assert by_file["nodePortAddresses"] == ["10.0.0.0/8", "192.0.2.0/24"]


def test_nothing_that_was_built_needs_a_library_of_the_machine(built):
    for ready in built.items.values():
        if ready.name != "images":
            headers = run("readelf", "--program-headers", ready.local).stdout
            assert "INTERP" not in headers, ready.name


def test_runc_filters_system_calls(built):
    assert "libseccomp" in run(built.get("runc/runc", ARCH).local, "--version").stdout


def test_a_pin_is_the_hash_of_the_file(built):
    for ready in built.items.values():
        with ready.local.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == ready.pin


def test_a_second_preparation_builds_nothing_and_is_quick(built):
    progress, started = Notes(), time.monotonic()
    again = prepare(ArtifactsSource(source="build"), KUBERNETES_DEFAULT, built.items, progress)
    assert again.items == built.items
    assert (progress.phases, progress.notes) == ([], [])
    assert time.monotonic() - started < 2


@pytest.fixture(scope="module")
def registry(built, tmp_path_factory):
    """Run the built registry with the built images. Yields its address."""
    root = tmp_path_factory.mktemp("registry")
    with tarfile.open(built.get("images", ARCH).local) as tar:
        tar.extractall(root, filter="data")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = root / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    server = subprocess.Popen(
        [built.get("registry/registry", ARCH).local, "serve", config],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )
    url = f"http://127.0.0.1:{port}/v2/"
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield url
    server.terminate()
    server.wait(timeout=10)
    shutil.rmtree(root)


def pull(url, media_type):
    request = urllib.request.Request(url, headers={"Accept": media_type})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        content = response.read()
        return content, response.headers


@pytest.mark.parametrize("name", TABLE)
def test_a_real_registry_serves_every_image_as_containerd_asks(registry, name):
    """Request the tag, then the manifest by its digest, then each blob by its digest."""
    image = TABLE[name]
    repository, tag = split_reference(image.reference)
    media_type = "application/vnd.oci.image.manifest.v1+json"
    head = urllib.request.Request(  # noqa: S310
        f"{registry}{repository}/manifests/{tag}?ns=x",
        headers={"Accept": media_type},
        method="HEAD",
    )
    with urllib.request.urlopen(head, timeout=10) as response:  # noqa: S310
        digest = response.headers["Docker-Content-Digest"]
    content, headers = pull(f"{registry}{repository}/manifests/{digest}", media_type)
    assert headers["Content-Type"] == media_type
    assert "sha256:" + hashlib.sha256(content).hexdigest() == digest
    manifest = json.loads(content)
    layers = {}
    for part in (manifest["config"], *manifest["layers"]):
        blob, _ = pull(f"{registry}{repository}/blobs/{part['digest']}", "*/*")
        assert "sha256:" + hashlib.sha256(blob).hexdigest() == part["digest"]
        assert len(blob) == part["size"]
        layers[part["digest"]] = blob
    config = json.loads(layers.pop(manifest["config"]["digest"]))
    assert (config["architecture"], config["os"]) == (ARCH, "linux")
    assert config["rootfs"]["diff_ids"] == list(layers)
    entries = {}
    for layer in layers.values():
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            entries |= {f"/{member.name}": member for member in tar}
    for path in image.programs:
        assert entries[path].mode == 0o755
    assert config["config"]["User"] == image.user
    assert config["config"].get("Entrypoint", []) == list(image.entrypoint)


def test_the_registry_has_exactly_the_images_of_the_table(registry):
    content, _ = pull(f"{registry}_catalog", "*/*")
    assert set(json.loads(content)["repositories"]) == {
        split_reference(image.reference)[0] for image in TABLE.values()
    }
    with pytest.raises(urllib.error.HTTPError, match="404"):
        pull(f"{registry}registry.k8s.io/pause/manifests/0.0", "*/*")


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A directory with BusyBox under all its names, like /bin in the image."""
    wanted = [("busybox/busybox", ARCH)]
    made = prepare(ArtifactsSource(source="build"), "1.36.3", wanted, Silent())
    path = tmp_path_factory.mktemp("tools")
    for tool in TOOLS:
        (path / tool).symlink_to(made.get("busybox/busybox", ARCH).local)
    return path


def sh(tools, *arguments, **environment):
    return run(tools / "sh", *arguments, env={"PATH": str(tools), **environment})


def test_the_helper_image_runs_the_provisioners_scripts(tools, tmp_path):
    setup, teardown = tmp_path / "setup", tmp_path / "teardown"
    setup.write_text('#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n')
    teardown.write_text('#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n')
    volume = tmp_path / "volumes" / "pvc-1"
    assert sh(tools, setup, VOL_DIR=str(volume)).returncode == 0
    assert volume.stat().st_mode & 0o7777 == 0o777
    (volume / "deep").mkdir()
    (volume / "deep" / "file").write_text("data")
    assert sh(tools, setup, VOL_DIR=str(volume)).returncode == 0
    assert sh(tools, teardown, VOL_DIR=str(volume)).returncode == 0
    assert not volume.exists()


def test_the_helpers_shell_stops_at_the_first_failure(tools, tmp_path):
    script = tmp_path / "script"
    script.write_text('set -eu\nmkdir -p "$VOL_DIR"\necho made\n')
    unset = sh(tools, script)
    assert unset.returncode != 0
    assert "VOL_DIR" in unset.stderr
    (tmp_path / "file").touch()
    impossible = sh(tools, script, VOL_DIR=str(tmp_path / "file" / "x"))
    assert impossible.returncode != 0
    assert "made" not in impossible.stdout


@pytest.mark.parametrize(
    ("program", "expected", "status"),
    [
        ("echo hello; exit 3", "hello\n", 3),
        ("x=1; while [ $x -lt 3 ]; do echo $x; x=$((x+1)); done", "1\n2\n", 0),
        (
            "touch f && echo text > f && cat f && stat -c %s f && ls && rm f && ls",
            "text\n5\nf\n",
            0,
        ),
        ("env A=b sh -c 'echo $A'", "b\n", 0),
        ("[ $(id -u) = $(id -u) ] && true || echo no", "", 0),
        ("false || echo $?", "1\n", 0),
        ("mkdir d; cp /nowhere d; echo $?", "1\n", 0),
        ("nothing-like-it; echo $?", "127\n", 0),
        ("sleep 0.01; hostname > h; stat -c %a h >/dev/null && echo ok", "ok\n", 0),
    ],
)
def test_the_helpers_tools_do_what_scripts_expect(tools, tmp_path, program, expected, status):
    done = run(tools / "sh", "-c", program, cwd=tmp_path, env={"PATH": str(tools)})
    assert (done.stdout, done.returncode) == (expected, status)


def test_the_helper_gets_a_page_over_http(tools, upstream):
    url = f"http://{upstream.host}{KUBELET}"
    done = run(tools / "wget", "-q", "-T", "5", "-O", "-", url)
    assert done.stdout.encode() == upstream.files[KUBELET]
    assert run(tools / "wget", "-qO-", f"http://{upstream.host}/none").returncode == 1


def test_pause_reaps_orphans_and_ends_on_a_signal(tmp_path):
    """In its own process namespace it is process 1, as in a pod that shares its processes."""
    wanted = [("pause/pause", ARCH)]
    made = prepare(ArtifactsSource(source="build"), "1.36.3", wanted, Silent())
    pause = made.get("pause/pause", ARCH).local
    orphan = f"(sleep 0.2 & exec true) & exec {pause}"
    process = subprocess.Popen(["unshare", "--pid", "--fork", "sh", "-c", orphan])
    try:
        time.sleep(1)
        (child,) = _children(process.pid)
        assert _children(child) == []
        os.kill(child, 15)
        assert process.wait(timeout=5) == 0
    finally:
        process.kill()
        process.wait()


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_two_at_once_build_once(empty_cache, tmp_path):
    """The second waits, and then finds everything built."""
    program = (
        "from provision.artifacts import prepare; from provision.model.settings.components import ArtifactsSource\n"
        "from provision.local.progress import Silent\n"
        "class Tell(Silent):\n"
        "    def update(self, subject, text): print(text, flush=True)\n"
        "    def note(self, text): print(text, flush=True)\n"
        f"ready = prepare(ArtifactsSource(source='build'), '1.36.3', [('pause/pause', {ARCH!r})],"
        " Tell())\n"
        "print(next(iter(ready.items.values())).pin)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert sum(lines.count("compiling") for lines in said) == 1
    left = [p.name for p in empty_cache.rglob("*") if p.name.startswith(".go-")]
    assert left == []


def test_what_does_not_compile_is_reported_with_the_compilers_words(
    empty_cache, tmp_path, monkeypatch
):
    source = tmp_path / "modules" / "pause"
    source.mkdir(parents=True)
    (source / "go.mod").write_text("module pause\n\ngo 1.26.0\n")
    (source / "main.go").write_text("package main\n\nfunc main() { nowhere() }\n")
    monkeypatch.setattr("provision.artifacts.recipes.MODULES", source.parent)
    progress = Notes()
    with pytest.raises(ArtifactError, match="undefined: nowhere"):
        prepare(ArtifactsSource(source="build"), "1.36.3", [("pause/pause", ARCH)], progress)
    assert progress.failed == [f"pause 1 {ARCH}"]
    assert [p for p in empty_cache.rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_without_go_and_a_package_of_it_the_error_names_go(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtifactError, match="needs Go") as caught:
        prepare(ArtifactsSource(source="build"), "1.36.3", [("pause/pause", ARCH)], Silent())
    assert "go.dev/doc/install" in caught.value.hint


def test_another_architecture_is_built_too_and_runc_says_what_it_lacks(
    empty_cache, tmp_path, monkeypatch
):
    other = {"amd64": "arm64", "arm64": "amd64"}[ARCH]
    made = prepare(ArtifactsSource(source="build"), "1.36.3", [("pause/pause", other)], Silent())
    header = run("readelf", "--file-header", made.get("pause/pause", other).local).stdout
    assert {"arm64": "AArch64", "amd64": "X86-64"}[other] in header
    gnu = {"amd64": "x86_64", "arm64": "aarch64"}[other]
    if shutil.which(f"{gnu}-linux-gnu-gcc"):
        return
    with pytest.raises(ArtifactError, match=f"{gnu}-linux-gnu-gcc") as caught:
        prepare(ArtifactsSource(source="build"), "1.36.3", [("runc/runc", other)], Silent())
    assert f"libseccomp-dev:{other}" in caught.value.hint


def test_this_computers_architecture_has_a_name_in_the_catalogue():
    assert {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()] == ARCH
