"""A compiler is installed on the operator's computer only with the operator's consent."""

import io
import re

import pytest
import typer

from provision.artifacts import go
from provision.cli.confirm import may_install
from provision.local.progress import Silent
from provision.model.errors import RefusedError


@pytest.fixture
def bare(monkeypatch):
    """Root on Debian, without any compiler. Gives the commands that were run."""
    ran = []
    monkeypatch.setattr(go.shutil, "which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(go.os, "geteuid", lambda: 0)
    monkeypatch.setattr(go, "_output", lambda command, *_: ran.append(command) or "")
    return ran


def find_go(agree):
    go.toolchain(Silent().note, agree)


def find_gcc(agree):
    go.c_compiler(go.machine_arch(), Silent().note, agree)


@pytest.mark.parametrize(
    ("find", "package"), [(find_go, "golang-go"), (find_gcc, "libseccomp-dev")]
)
def test_without_a_terminal_nothing_is_installed_and_the_hint_is_the_command(
    bare, monkeypatch, find, package
):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for agree in (go.refuse, may_install(yes=False)):
        with pytest.raises(RefusedError, match=package) as caught:
            find(agree)
        assert re.search(f"apt-get install .*{package}", caught.value.hint)
    assert bare == []


@pytest.mark.parametrize("find", [find_go, find_gcc])
def test_a_no_installs_nothing(bare, monkeypatch, find):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("provision.cli.confirm.sys.stdin", Terminal("n\n"))
    with pytest.raises(typer.Abort):
        find(may_install(yes=False))
    assert bare == []


@pytest.mark.parametrize(
    ("find", "package"), [(find_go, "golang-go"), (find_gcc, "libseccomp-dev")]
)
def test_yes_on_the_command_line_answers(bare, find, package):
    with pytest.raises(go.ArtifactError):  # after apt-get there is still no compiler here
        find(may_install(yes=True))
    assert any("install" in command and package in command for command in bare)


class Terminal(io.StringIO):
    def isatty(self):
        return True
