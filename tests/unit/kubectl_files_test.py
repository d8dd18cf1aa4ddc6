"""Files that a kubectl command names are those of this computer."""

import io
import os
import shlex
import subprocess
import sys
import tarfile
import time
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
        ("apply -f /dev/stdin", []),
        ("apply -Rf all", ["all/deep/three.yaml", "all/one.yml", "all/two.json"]),
        ("apply -Rfall", ["all/deep/three.yaml", "all/one.yml", "all/two.json"]),
        ("apply -k github.com/example/app//base?ref=v1", []),
        ("apply -k https://example.org/app.git", []),
        ("kustomize git@example.org:team/app.git", []),
        ("cp --retries 3 app.yaml web:/tmp/app.yaml", ["app.yaml"]),
        ("create configmap c --from-file=a=app.yaml,b=conf/x.conf", ["app.yaml", "conf/x.conf"]),
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


@pytest.mark.parametrize(
    "command",
    [
        "apply -f nowhere.yaml",
        "apply -f app.yaml,nowhere.yaml",
        "apply -Rf nowhere.yaml",
        "apply -k nowhere.yaml",
        "kustomize nowhere.yaml",
        "create configmap c --from-file=key=nowhere.yaml",
        "create configmap c --from-env-file nowhere.yaml",
        "patch pod p --patch-file nowhere.yaml",
        "get pods -o jsonpath-file=nowhere.yaml",
        "cp nowhere.yaml web:/tmp",
    ],
)
def test_a_path_that_is_not_here_is_refused_since_the_master_may_have_such_a_file(command, here):
    with pytest.raises(RefusedError, match=r"there is no file nowhere\.yaml"):
        files(here, command)


def test_a_copy_with_unknown_words_is_refused(here):
    with pytest.raises(RefusedError, match="does not know which file"):
        files(here, "cp --unknown 3 app.yaml web:/tmp")


@pytest.mark.parametrize(
    "command",
    ["kustomize overlay -o x", "kustomize --output=x .", "cluster-info dump --output-directory x"],
)
def test_an_output_file_is_refused_since_it_would_be_written_on_the_master(command, here):
    with pytest.raises(RefusedError, match="would write x on the master") as refused:
        files(here, command)
    assert "> FILE" in refused.value.hint


def test_a_long_text_in_a_kustomization_is_no_path(here):
    (here / "base/kustomization.yaml").write_text(f"patches: [{{patch: '{'x' * 900}'}}]")
    assert files(here, "apply -k base") == ["base/kustomization.yaml"]


def test_the_standard_input_is_not_rewritten(here):
    given = ["apply", "-f", f"/dev/stdin,{here}/app.yaml"]
    paths, _ = kubectl_files.named(given)
    assert kubectl_files.rewritten(given, paths, "/run/x")[2] == f"/dev/stdin,/run/x{here}/app.yaml"


def test_the_content_of_a_pipe_is_sent(here):
    program = (
        "import sys; from provision.cli import kubectl_files as k\n"
        "k.pack(k.named(sys.argv[1:])[1], sys.stdout.buffer)"
    )
    line = shlex.join([sys.executable, "-c", program, "apply", "-f"]) + " <(echo kind: Pod)"
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, check=True)

    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        (entry,) = [member for member in tar if not member.isdir()]
        assert entry.name.startswith("dev/fd/")
        assert tar.extractfile(entry).read() == b"kind: Pod\n"


def test_files_that_would_fill_the_masters_memory_are_refused(here):
    with (here / "big").open("wb") as big:
        big.truncate(kubectl_files.LIMIT + 1)
    out = io.BytesIO()
    with pytest.raises(RefusedError, match="larger than 64 MiB; nothing was sent") as refused:
        kubectl_files.pack({here / "big"}, out)
    assert "clusterctl kubeconfig" in refused.value.hint
    assert len(out.getvalue()) < 1 << 20


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


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The master's directory for copies. `/run` in the program is this directory."""
    run = tmp_path / "run"
    run.mkdir()
    program = access_commands._UNPACK.replace("/run", str(run))
    monkeypatch.setattr(access_commands, "_UNPACK", program)
    return run


def test_files_that_did_not_arrive_whole_are_removed_on_the_master(here, copies):
    whole = io.BytesIO()
    kubectl_files.pack({here / "a b.yaml"}, whole)
    cut = whole.getvalue()[:-9800]

    done = subprocess.run(["sh", "-c", access_commands._UNPACK], input=cut, check=False)

    assert done.returncode
    assert list(copies.iterdir()) == []


def test_a_copy_is_removed_if_the_connection_breaks_before_its_name_is_told(here, copies):
    whole = io.BytesIO()
    kubectl_files.pack({here / "a b.yaml"}, whole)
    reader, writer = os.pipe()
    os.close(reader)

    subprocess.run(
        ["sh", "-c", access_commands._UNPACK], input=whole.getvalue(), stdout=writer, check=False
    )
    os.close(writer)

    assert list(copies.iterdir()) == []


def test_copies_older_than_a_day_are_removed(here, copies):
    old, young = copies / "clusterctl-kubectl.old", copies / "clusterctl-kubectl.young"
    for directory, hours in ((old, 25), (young, 23)):
        directory.mkdir()
        (directory / "secret.yaml").touch()
        os.utime(directory, (time.time() - hours * 3600,) * 2)
    whole = io.BytesIO()
    kubectl_files.pack({here / "a b.yaml"}, whole)

    done = subprocess.run(
        ["sh", "-c", access_commands._UNPACK],
        input=whole.getvalue(),
        stdout=subprocess.PIPE,
        check=True,
    )

    new = Path(done.stdout.decode().strip())
    assert set(copies.iterdir()) == {young, new}
    assert (new / str(here)[1:] / "a b.yaml").read_text() == "kind: Secret"


def test_an_empty_directory_is_not_looked_for_on_the_master(here, monkeypatch):
    (here / "empty").mkdir()
    sent = []
    monkeypatch.setattr(access_commands, "_located", lambda _: (cluster(), Path("known")))
    monkeypatch.setattr(access_commands, "_answers", lambda *_, **__: True)
    monkeypatch.setattr(access_commands, "_send", lambda *_: "/run/copy")
    monkeypatch.setattr(access_commands, "_run", lambda *given: sent.append(given[2]))

    assert main(["kubectl", "x.py", "--", "apply", "-f", "empty"]) == 0
    assert f"cd /run/copy{here} && " in sent[0]
