"""Files that a kubectl command names are those of this computer."""

import io
import os
import shlex
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from provision.cli import access_commands, kubectl_files
from provision.cli.app import main
from provision.model.errors import RefusedError
from tests.world import cluster


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A present directory with manifests, a kustomization above its base, and other files."""
    for name, text in {
        "app.yaml": "kind: ConfigMap",
        "a b.yaml": "kind: Secret",
        "all/one.yml": "kind: Pod",
        "all/two.json": "{}",
        "all/notes.txt": "",
        "all/deep/three.yaml": "kind: Pod",
        "conf/x.conf": "x",
        "overlay/kustomization.yaml": (
            "resources: [../base]\nconfigMapGenerator: [{name: c, files: [key=../conf/x.conf]}]\n"
        ),
        "base/kustomization.yaml": "resources: [app.yaml, https://example.org/x.yaml]\n",
        "base/app.yaml": "kind: Pod",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(here, text):
    return sorted(str(p.relative_to(here)) for p in kubectl_files.named(shlex.split(text))[1])


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("apply -f app.yaml", ["app.yaml"]),
        ("apply -fapp.yaml", ["app.yaml"]),
        ("apply -f=app.yaml", ["app.yaml"]),
        ("apply --filename=app.yaml", ["app.yaml"]),
        ("apply --filename 'a b.yaml'", ["a b.yaml"]),
        ("-n kube-system create -f app.yaml,all/one.yml", ["all/one.yml", "app.yaml"]),
        ("replace -f ./app.yaml -f all/one.yml", ["all/one.yml", "app.yaml"]),
        ("delete -f all", ["all/one.yml", "all/two.json"]),
        ("diff -R -f all", ["all/deep/three.yaml", "all/one.yml", "all/two.json"]),
        ("apply -f 'all/*.yml'", ["all/one.yml"]),
        ("apply -f -", []),
        ("apply -f https://example.org/app.yaml", []),
        ("apply -f nowhere.yaml", []),
        ("logs -f app.yaml", []),
        ("-n x logs -f app.yaml", []),
        ("exec pod -- cat -f app.yaml", []),
        ("get pods -A", []),
        ("get pods -o jsonpath-file=conf/x.conf", ["conf/x.conf"]),
        ("create configmap c --from-file=conf/x.conf", ["conf/x.conf"]),
        ("create configmap c --from-file=key=conf/x.conf", ["conf/x.conf"]),
        ("create configmap c --from-file conf", ["conf/x.conf"]),
        ("create configmap c --from-env-file conf/x.conf", ["conf/x.conf"]),
        ("patch pod p --patch-file app.yaml", ["app.yaml"]),
        ("create secret tls t --cert=app.yaml --key=conf/x.conf", ["app.yaml", "conf/x.conf"]),
        ("cp app.yaml web:/tmp/app.yaml", ["app.yaml"]),
        (
            "cp -c main all ns/web:/tmp",
            ["all/deep/three.yaml", "all/notes.txt", "all/one.yml", "all/two.json"],
        ),
        *(
            (
                f"{verb} overlay",
                ["base/app.yaml", "base/kustomization.yaml", "conf/x.conf"]
                + ["overlay/kustomization.yaml"],
            )
            for verb in ("apply -k", "kustomize", "delete --kustomize")
        ),
    ],
)
def test_the_files_that_kubectl_needs_are_found(command, expected, here):
    assert files(here, command) == expected


def test_a_file_from_a_pod_is_refused_since_it_would_be_written_on_the_master():
    with pytest.raises(RefusedError, match="on the master") as refused:
        kubectl_files.named(["cp", "web:/etc/hosts", "hosts"])
    assert "clusterctl kubeconfig" in refused.value.hint


def test_only_absolute_paths_change(here):
    given = ["apply", "-f", f"{here}/app.yaml,app.yaml", f"--from-file=k={here}/conf/x.conf"]
    paths, _ = kubectl_files.named(given)

    assert kubectl_files.rewritten(given, paths, "/run/x") == [
        "apply",
        "-f",
        f"/run/x{here}/app.yaml,app.yaml",
        f"--from-file=k=/run/x{here}/conf/x.conf",
    ]


def test_the_archive_has_whole_paths(here):
    (here / "link.yaml").symlink_to("app.yaml")
    out = io.BytesIO()
    kubectl_files.pack({here / "link.yaml"}, out)

    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.extractfile(f"{here}/link.yaml"[1:]).read() == b"kind: ConfigMap"


@pytest.fixture
def master(tmp_path_factory, monkeypatch):
    """A master that this computer plays: `ssh` runs the command here; kubectl shows its file."""
    programs = tmp_path_factory.mktemp("bin")
    kubectl = programs / "kubectl"
    kubectl.write_text('#!/bin/sh\npwd\nfor a; do [ -f "$a" ] && cat "$a"; done\nexit 3\n')
    kubectl.chmod(0o755)
    monkeypatch.setattr(
        "provision.desired.components.control_plane.KUBECTL", shlex.quote(str(kubectl))
    )
    monkeypatch.setattr(access_commands, "_located", lambda _: (cluster(), Path("known")))
    monkeypatch.setattr(access_commands, "_answers", lambda *_, **__: True)
    monkeypatch.setattr(
        access_commands, "_ssh_command", lambda _, __, command, **___: ["sh", "-c", command]
    )
    seen = SimpleNamespace(out="", code=0)

    def run(command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seen.out, seen.code = done.stdout + done.stderr, done.returncode
        raise SystemExit(done.returncode)

    monkeypatch.setattr(access_commands, "_exec", run)
    return seen


@pytest.mark.skipif(not os.access("/run", os.W_OK), reason="needs to write into /run")
@pytest.mark.parametrize("absolute", [False, True])
def test_kubectl_finds_the_file_in_a_copy_that_is_removed(absolute, here, master):
    before = set(Path("/run").glob("clusterctl-kubectl.*"))
    file = str(here / "a b.yaml") if absolute else "a b.yaml"

    assert main(["kubectl", "x.py", "--", "apply", "-f", file]) == 3

    directory, content = master.out.splitlines()
    assert directory.startswith("/run/clusterctl-kubectl.")
    assert directory.endswith(str(here))
    assert content == "kind: Secret"
    assert set(Path("/run").glob("clusterctl-kubectl.*")) == before
