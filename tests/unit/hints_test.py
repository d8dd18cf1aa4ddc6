"""Every command that a message tells the operator to run: it parses, it exists, it helps."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from provision import inventory
from provision.cli import app as cli
from provision.drill import command as drill
from provision.local import private_file, seal
from provision.model.commands import clusterctl, shell
from provision.model.errors import InventoryError, RefusedError
from provision.plan.machine_checks import _unit
from provision.plan.place_checks import _remount
from provision.plan.preflight import _NEW_ID

ROOT = Path(cli.__file__).parents[1]
# What a hint calls, and why it is there where the hint is shown.
PROGRAMS = {
    # in every Debian, Ubuntu, RHEL and Amazon Linux
    **dict.fromkeys(("chmod", "df", "rm"), "coreutils"),
    **dict.fromkeys(("mount", "swapoff"), "util-linux"),
    **dict.fromkeys(
        ("hostnamectl", "systemctl", "systemd-machine-id-setup", "timedatectl"), "systemd"
    ),
    "ss": "iproute2; clusterctl's probe uses it",
    "unset": "the shell",
    "usermod": "passwd, and shadow-utils in the RHEL family",
    "sshd": "it answered",
    # the operator's computer must have it
    **dict.fromkeys(("ssh", "ssh-add", "ssh-keygen"), "the OpenSSH client"),
    # only where the rule that failed has found it
    "apt-get": "Debian's family",
    "dnf": "the RHEL family",
    "firewall-cmd": "firewalld is active",
    "setsebool": "SELinux enforces: policycoreutils",
    "ufw": "ufw is active",
    # only for those who use it already
    **dict.fromkeys(("age-keygen", "aws", "pip", "podman", "pyinfra"), "the operator's tool"),
}
# Expressions in the place of a program's name.
CHOSEN = {
    "self._engine.name": "podman or docker, which made the lab",
    "*insert": "nft, which shows the rules",
    "*rules": "iptables, which shows the rules",
}
# No cluster is known where these messages are made.
WITHOUT_INVENTORY = {
    "artifacts/bundle.py",
    "cli/kubectl_files.py",
    "commands/etcd/verify.py",
    "inventory/checks.py",
    "machines/lab_network.py",
    "pki/kubeconfig.py",
    "pki/leaf.py",
    "pki/signed.py",
    "plan/machine_checks.py",
}
# Descriptions of fields, and what the drill prints about itself: no one is told to run these.
DESCRIBED = {"drill/interruption.py", "inventory/reference.py", "model/settings/security.py"}


@dataclass(frozen=True)
class Told:
    """A call that makes a command.

    Attributes:
        words: a constant word, or None for a value that is known at run time.
    """

    file: str
    line: int
    source: str
    words: tuple[str | None, ...]


@cache
def trees() -> dict[str, ast.Module]:
    return {str(f.relative_to(ROOT)): ast.parse(f.read_text()) for f in ROOT.rglob("*.py")}


def told(function: str) -> list[Told]:
    found = []
    for file, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == function:
                words = [
                    a for a in node.args if function == "shell" or not isinstance(a, ast.Starred)
                ]
                found.append(
                    Told(
                        file, node.lineno, ast.unparse(node),
                        tuple(str(a.value) if isinstance(a, ast.Constant) else None for a in words),
                    )
                )  # fmt: skip
    return [call for call in found if call.file != "model/commands.py"]


def parse(words: list[str]) -> dict[str, object]:
    """Parse a command line of clusterctl as its program does.

    Returns:
        The values of the last command's parameters.

    Raises:
        click's UsageError: it is wrong.
    """
    command = get_command(drill.app) if words[0] == "drill" else cli._commands()
    context = command.make_context("clusterctl", words[words[0] == "drill" :])
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return context.params


def filled(call: Told, path: Path, value: str) -> list[str]:
    """Give the words, with the inventory's path for the first value and another for the others."""
    values = iter([str(path), *[value] * len(call.words)])
    known = {"INVENTORY": str(path), "DIR": str(path.parent)}
    return [next(values) if w is None else known.get(w, w) for w in call.words]


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "my clusters"
    folder.mkdir()
    file = folder / "the $1.py"
    file.write_text('masters = ["m1"]\ncluster = {"name": "demo", "machines": "lab"}\n')
    return file


@pytest.mark.parametrize("call", told("clusterctl"), ids=lambda c: f"{c.file}:{c.line}")
def test_a_command_of_clusterctl_parses(call, path):
    problems = []
    # A name, a number, a directory, an authority.
    for value in ("m1", "1", str(path.parent), "etcd"):
        try:
            values = parse(filled(call, path, value))
        except Exception as error:  # noqa: BLE001
            problems.append(f"{call.source}: {error}")
        else:
            assert values.get("inventory", path) == path
            return
    pytest.fail("\n".join(problems))


def test_a_wrong_command_would_be_found(path):
    assert parse(["down", "again"])["inventory"] != path
    for wrong in (["etcd", "restore", str(path), "SNAPSHOT"], ["etcd", "snapshot"], ["chek"]):
        with pytest.raises(BaseException, match=r"unexpected|Missing|No such"):
            parse(wrong)


def test_the_inventory_is_the_operators_own_where_it_is_known():
    assert {c.file for c in told("clusterctl") if "INVENTORY" in c.words} == WITHOUT_INVENTORY


def test_no_text_is_a_statement_of_its_own():
    """The second line of a message without parentheses would be lost."""
    lost = {
        f"{file}:{node.lineno}"
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, (ast.JoinedStr, ast.BinOp))
    }
    assert lost == set()


def _strings(tree: ast.AST) -> list[str]:
    described = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and id(node) not in described
    ]  # fmt: skip


def test_no_command_of_clusterctl_is_written_by_hand():
    names = "|".join(sorted(cli._commands().commands))
    written = re.compile(rf"clusterctl ({names})\b(?! THIS_FILE)")
    found = {
        f"{file}: {text}"
        for file, tree in trees().items()
        if file not in DESCRIBED
        for text in _strings(tree)
        if written.search(text) and not text.startswith("Example: ")
    }
    assert found == set()


def _hints(tree: ast.AST) -> list[str]:
    """Give the constant parts of each hint that are not in a call of `shell`."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += [k.value for k in node.keywords if k.arg == "hint"]
            name = ast.unparse(node.func).rpartition(".")[2]
            found += node.args[{"Finding": 2, "finding": 1}.get(name, 99) :]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "hint":
            found.append(node.value)
    texts = []
    while found:
        node = found.pop()
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"shell", "clusterctl"}:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
        found += ast.iter_child_nodes(node)
    return texts


def test_no_other_command_is_written_by_hand():
    # These are words of sentences too.
    names = "|".join(sorted(PROGRAMS.keys() - {"mount", "unset", "aws", "pyinfra", "sshd"}))
    written = re.compile(rf"(?<![\w-])({names}) +[-\w/.]")
    found = {
        f"{file}: {text}"
        for file, tree in trees().items()
        for text in _hints(tree)
        if written.search(text)
    }
    assert found == set()


@pytest.mark.parametrize("call", told("shell"), ids=lambda c: f"{c.file}:{c.line}")
def test_a_command_of_a_shell_is_valid_and_its_program_exists(call):
    program = call.words[0]
    if program is None:
        assert call.source.removeprefix("shell(").split(",")[0] in CHOSEN
    else:
        assert program in PROGRAMS
    line = shell(*(word or "a b" for word in call.words))
    subprocess.run(["bash", "-nc", line], check=True)


def test_the_programs_of_every_distribution_exist_here():
    everywhere = {"coreutils", "util-linux", "systemd", "the OpenSSH client"}
    for program, why in PROGRAMS.items():
        if why in everywhere:
            assert shutil.which(program), program


def test_a_word_reaches_the_program_as_it_is(path):
    line = clusterctl("up", path)
    out = subprocess.run(
        ["bash", "-c", f"clusterctl() {{ printf '%s\\n' \"$@\"; }}; {line}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert out == f"up\n{path}\n"


# What follows does what the hint says, and sees that the error is gone.


def run(hint: str, **environment: str) -> None:
    subprocess.run(["bash", "-c", hint], check=True, env=environment or None)


def test_the_hint_for_an_open_file_closes_it(tmp_path):
    file = tmp_path / "a key"
    file.write_text("secret")
    file.chmod(0o644)
    with pytest.raises(RefusedError) as caught:
        private_file.read(file)
    run(caught.value.hint)

    assert private_file.read(file) == b"secret"


def test_the_hint_for_two_seals_leaves_one(tmp_path, monkeypatch):
    file = tmp_path / "passphrase"
    file.write_text("secret\n")
    file.chmod(0o600)
    monkeypatch.setenv(seal.PASSPHRASE_FILE, str(file))
    monkeypatch.setenv(seal.AGE_IDENTITY, str(file))
    with pytest.raises(RefusedError) as caught:
        seal.wanted()
    unset = caught.value.hint.partition(": ")[2]
    left = subprocess.run(
        ["bash", "-c", f"{unset}; env"], check=True, capture_output=True, text=True
    ).stdout
    assert seal.PASSPHRASE_FILE in left
    assert seal.AGE_IDENTITY not in left
    monkeypatch.delenv(shlex.split(unset)[1])

    assert seal.wanted().passphrase == "secret"


def test_the_hint_for_a_missing_inventory_makes_one(tmp_path):
    file = tmp_path / "my cluster.py"
    with pytest.raises(InventoryError) as caught:
        inventory.read(file)
    make = caught.value.findings[0].hint.partition(": ")[2]
    program = f'clusterctl() {{ {shlex.quote(sys.executable)} -m provision "$@"; }}'
    subprocess.run(["bash", "-c", f"{program}; {make}"], check=True)

    assert inventory.read(file).name == "mine"


@pytest.mark.skipif(not shutil.which("systemd-escape"), reason="no systemd here")
@pytest.mark.parametrize("name", ["/dev/sda2", "/swapfile", "/var/swap file-1", "/dev/dm-0", "/ä"])
def test_the_unit_that_a_hint_masks_is_that_of_the_swap(name):
    escaped = subprocess.run(
        ["systemd-escape", "--path", "--suffix=swap", name],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip

    assert _unit(name) == escaped


in_a_namespace = pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0,  # noqa: S607
    reason="needs namespaces",
)


def in_own_mounts(program: str) -> str:
    return subprocess.run(
        ["unshare", "-rm", "sh", "-euc", program], check=True, capture_output=True, text=True
    ).stdout


@in_a_namespace
def test_the_hints_for_a_file_system_make_it_writable_and_its_programs_run(tmp_path):
    place = tmp_path / "a b"
    place.mkdir()
    hints = [_remount(str(place), option).partition("; and ")[0] for option in ("rw", "exec")]
    there = shlex.quote(str(place))
    done = in_own_mounts(f"""
        mount -t tmpfs -o ro,noexec x {there}
        ! touch {there}/program 2>/dev/null
        {hints[0]}
        printf '#!/bin/sh\\necho ran\\n' >{there}/program
        chmod 700 {there}/program
        ! {there}/program 2>/dev/null
        {hints[1]}
        {there}/program
        """)
    assert done == "ran\n"


@in_a_namespace
def test_the_hint_for_a_clone_makes_another_id_though_d_bus_has_the_old_one(tmp_path):
    old = "0123456789abcdef0123456789abcdef"
    there = shlex.quote(str(tmp_path))
    done = in_own_mounts(f"""
        mount -t tmpfs x {there}
        cp -a /etc {there}/etc 2>/dev/null || true
        mkdir -p {there}/dbus
        mount --bind {there}/etc /etc
        [ ! -d /var/lib/dbus ] || mount --bind {there}/dbus /var/lib/dbus
        echo {old} >/etc/machine-id
        [ ! -d /var/lib/dbus ] || echo {old} >/var/lib/dbus/machine-id
        {_NEW_ID}
        cat /etc/machine-id
        """)
    assert re.fullmatch(r"[0-9a-f]{32}\n", done)
    assert done != f"{old}\n"
