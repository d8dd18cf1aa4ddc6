"""The command line itself: help, usage errors, exit codes. No machine is needed for any of it."""

import inspect
import io
import json
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from types import SimpleNamespace

import pytest
import typer.core
import typer.main

from provision.apply.session import Session
from provision.artifacts.catalogue import catalogue
from provision.cli import progress
from provision.cli.app import app, main
from provision.cli.confirm import confirm
from provision.cli.options import Output
from provision.cli.views.summaries import show_up
from provision.commands.converge import Report
from provision.drill import command
from provision.inventory import read
from provision.model.errors import RefusedError
from tests.world import cluster


def commands(command, *names):
    if isinstance(command, typer.core.TyperGroup):
        for name, inner in command.commands.items():
            yield from commands(inner, *names, name)
    else:
        yield names


app.add_typer(command.app)  # as provision.__main__ does
COMMANDS = list(commands(typer.main.get_command(app)))
GROUPS = [(), *sorted({names[:1] for names in COMMANDS if len(names) > 1})]
# These need no cluster: the first makes an inventory, the others are about clusterctl itself.
WITHOUT = {("init",), ("artifacts", "lock"), ("version",)}
WITH_INVENTORY = [names for names in COMMANDS if names not in WITHOUT]
REST = {
    **{("node", verb): ["m1"] for verb in ("add", "remove", "replace")},
    ("ssh",): ["m1"],
    ("artifacts", "bundle"): ["out"],
    ("images", "push"): ["app:1"],
    ("certs", "renew"): ["--all"],
    ("ec2", "scale"): ["2"],
    ("certs", "csr"): ["-o", "out"],
    ("certs", "import"): ["."],
}


def test_the_last_line_of_up_has_the_wall_time_since_phases_overlap(capsys):
    began = time.monotonic() - 60
    session = Session(None, None, cluster(), None, None, None, SimpleNamespace(path=""), (), began)
    took = session.took
    report = Report({"m1": ("etcd",)}, {"services": 50.0, "etcd": 50.0}, took)

    run = SimpleNamespace(plan=SimpleNamespace(absent={}), session=session)
    show_up(session, run, report, Output.TABLE)

    assert 60 <= took < 70
    assert f"in {took:.0f} s." in capsys.readouterr().out


def test_all_commands_are_found():
    some = {("up",), ("plan",), ("ssh",), ("artifacts", "bundle"), ("recover",), ("drill",)}
    assert some <= set(COMMANDS)


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_an_example_of_it(names, capsys):
    assert main([*names, "--help"]) == 0

    assert f"  Example: clusterctl {' '.join(names)}" in capsys.readouterr().out


@pytest.mark.parametrize("names", GROUPS, ids=" ".join)
def test_a_group_shows_the_whole_first_sentence_of_each_command(names, capsys):
    assert main([*names, "--help"]) == 0

    text = capsys.readouterr().out
    assert "Commands:" in text
    cut = [line for line in text.splitlines() if line.endswith("...") and "COMMAND" not in line]
    assert cut == []


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_short_and_long(names, option, capsys):
    assert main([*names, option]) == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("names", WITH_INVENTORY, ids=" ".join)
def test_an_inventory_that_is_not_there_is_3(names, tmp_path, capsys):
    missing = tmp_path / "nowhere.py"

    assert main([*names, str(missing), *REST.get(names, [])]) == 3
    assert "nowhere.py" in "".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("names", WITH_INVENTORY, ids=" ".join)
def test_a_command_without_its_inventory_is_64(names, capsys):
    assert main([*names]) == 64
    assert "INVENTORY" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["artifacts", "lock"],
        ["artifacts", "lock", "--kubernetes", "v1.36"],
        ["up", "x.py", "--no-such-option"],
        ["status", "x.py", "-o", "xml"],
        ["init", "--masters", "3", "--workers", "root@10.0.0.1"],
        ["kubeconfig", "x.py", "--merge", "-o", "file"],
        ["kubeconfig", "x.py", "--ttl", "long"],
        ["kubeconfig", "x.py", "--ttl", "0"],
        ["kubeconfig", "x.py", "--user", "system:kube-scheduler"],
        ["certs", "renew", "x.py"],
        ["certs", "renew", "x.py", "--all", "admin"],
        ["certs", "rotate-ca", "x.py", "--ca", "encryption"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_64(arguments, capsys):
    assert main(arguments) == 64
    assert capsys.readouterr().err


def test_an_inventory_with_an_error_names_the_field(tmp_path, capsys):
    inventory = tmp_path / "one.py"
    inventory.write_text(
        'cluster = {"name": "one", "machines": "lab", "colour": "red"}\nmasters = ["m1"]\n'
    )

    assert main(["plan", str(inventory)]) == 3
    assert "colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("masters = [", "never closed"),
        ("cluster = {'name': 'x', 'machines': 'lab'}\nworkers = ['w1']\n", "masters"),
        (
            "cluster = {'name': 'x', 'machines': 'lab', 'kubernets': '1'}\nmasters = ['m1']\n",
            "kubernetes",
        ),
    ],
)
def test_a_wrong_inventory_is_refused_before_anything_is_touched(text, expected, tmp_path, capsys):
    inventory = tmp_path / "wrong.py"
    inventory.write_text(text)

    assert main(["up", str(inventory), "--yes"]) == 3
    assert expected in capsys.readouterr().err


def test_init_prints_an_inventory_that_can_be_read(tmp_path, capsys):
    assert main(["init", "--name", "tiny", "--masters", "1", "--workers", "2"]) == 0

    path = tmp_path / "tiny.py"
    path.write_text(capsys.readouterr().out)
    draft = read(path)
    assert draft.name == "tiny"
    assert len(draft.hosts) == 3


HEAVY = {
    *("boto3", "botocore", "cryptography", "gevent", "jinja2", "paramiko", "pydantic", "pyinfra"),
    *("pyrage", "sigstore", "yaml", "zstandard"),
}


@pytest.mark.parametrize(
    ("arguments", "by_typer"),
    [
        ([], set()),
        (["--help"], set()),
        (["--version"], set()),
        # Typer checks the values of the options before the command by pydantic.
        (["up", "--help"], {"pydantic"}),
        (["drill", "-h"], {"pydantic"}),
    ],
)
def test_help_imports_nothing_that_takes_long(arguments, by_typer):
    program = (
        f"import sys; sys.argv = ['clusterctl', *{arguments!r}]\n"
        "from provision.__main__ import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    imported = set(done.stderr.decode().split())
    assert {"provision", "typer"} <= imported
    assert imported & HEAVY <= by_typer


def test_the_command_line_imports_nothing_that_takes_long():
    program = "import provision.cli.app, provision.drill.command, sys; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert {name.partition(".")[0] for name in done.stdout.decode().split()} & HEAVY == set()


@pytest.mark.parametrize(
    "arguments", [["up", "x.py"], ["ssh", "x.py", "m1", "--", "df", "-h"]], ids=" ".join
)
def test_a_command_runs_with_gevents_patch_also_if_its_own_arguments_ask_for_help(arguments):
    program = (
        f"import sys; sys.argv = ['clusterctl', *{arguments!r}]\n"
        "from provision.__main__ import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "from gevent import monkey; sys.exit(monkey.is_module_patched('socket'))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 1


def test_the_version_is_shown(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"clusterctl {metadata.version('clusterctl')}\n"


def test_version_tells_what_can_be_installed(capsys):
    assert main(["version", "-o", "json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["clusterctl"] == metadata.version("clusterctl")
    assert found["kubernetes"]["default"] in found["kubernetes"]["versions"]
    assert found["kubernetes"]["versions"] == list(catalogue().versions)
    assert found["components"] == catalogue().sets
    assert found["images"]["coredns"].startswith("v1.")
    assert found["python"] == platform.python_version()
    assert found["platform"]


def test_version_is_a_table_too(capsys):
    assert main(["version"]) == 0

    text = capsys.readouterr().out
    assert f"clusterctl {metadata.version('clusterctl')}" in text
    for version in catalogue().versions:
        assert version in text
    assert "containerd" in text


def test_events_of_phases_go_to_the_file_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_events", [])
    file = tmp_path / "events"
    assert main(["--events", str(file), "up", str(tmp_path / "nowhere.py")]) == 3
    with progress.progress().phase("etcd", "start", ("m1",)):
        pass
    assert [json.loads(line)["phase"] for line in file.read_text().splitlines()] == ["etcd"] * 2


def test_without_a_terminal_a_change_is_refused_with_what_to_type(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    refusal = r"refusing to change ha without confirmation; use --yes"
    with pytest.raises(RefusedError, match=refusal) as refused:
        confirm("change ha", yes=False, hint="clusterctl plan ha.py shows the changes")
    assert refused.value.hint == "clusterctl plan ha.py shows the changes"
    confirm("change ha", yes=True)


@pytest.mark.parametrize(("typed", "agreed"), [("ha", True), ("y", False)])
def test_a_change_that_loses_data_needs_the_clusters_name(typed, agreed, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: typed)
    if agreed:
        confirm("remove ha", yes=False, name="ha")
    else:
        with pytest.raises(RefusedError, match="nothing was changed"):
            confirm("remove ha", yes=False, name="ha")


def test_a_change_that_the_operator_does_not_want_is_130(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))

    def no(*_, **options):
        assert options == {"abort": True, "err": True}
        raise typer.Abort

    monkeypatch.setattr(typer, "confirm", no)
    with pytest.raises(typer.Abort):
        confirm("change ha", yes=False)


def parameters(names):
    command = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    return command, {option for p in command.params for option in (*p.opts, *p.secondary_opts)}


# These change a cluster or machines, and ask nobody: what each changes can be done again or undone.
UNASKED = {
    ("machines", "up"),
    ("images", "push"),
    ("etcd", "defrag"),
    ("certs", "csr"),
    ("drill",),
}


def changing():
    """Commands that lock a cluster, or change which machines there are."""
    for names in COMMANDS:
        command, _ = parameters(names)
        function = inspect.unwrap(command.callback)
        text = inspect.getsource(function)
        if re.search(r"\bhold\(|take_apart\(|\.destroy\(|\.create\(|\.scale\(|unlock\(", text):
            yield names


def test_the_commands_that_change_something_are_found():
    assert {("up",), ("down",), ("node", "add"), ("node", "remove"), ("unlock",)} <= {*changing()}


@pytest.mark.parametrize("names", sorted({*changing()} - UNASKED), ids=" ".join)
def test_a_command_that_changes_something_may_be_told_not_to_ask(names):
    assert {"--yes", "-y"} <= parameters(names)[1]
