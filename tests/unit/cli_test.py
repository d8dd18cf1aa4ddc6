"""The command line itself: help, usage errors, exit codes. No machine is needed for any of it."""

import subprocess
import sys

import pytest
import typer.core
import typer.main

from provision.cli.app import app, main
from provision.inventory import read


def commands(command, *names):
    if isinstance(command, typer.core.TyperGroup):
        for name, inner in command.commands.items():
            yield from commands(inner, *names, name)
    else:
        yield names


COMMANDS = list(commands(typer.main.get_command(app)))
WITHOUT = {("init",), ("artifacts", "lock")}
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


def test_all_commands_are_found():
    assert {("up",), ("plan",), ("down",), ("ssh",), ("artifacts", "bundle")} <= set(COMMANDS)


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_an_example_of_it(names, capsys):
    assert main([*names, "--help"]) == 0

    text = " ".join(capsys.readouterr().out.split())
    assert f"Example: clusterctl {' '.join(names)}" in text


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


def test_help_does_not_wait_for_what_connects_to_machines():
    program = (
        "import sys; from provision.cli.app import main; main(['up', '--help']); "
        "sys.exit(sorted({'pyinfra', 'paramiko', 'boto3'} & sys.modules.keys()) or 0)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
