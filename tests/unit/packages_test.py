"""How packages are installed while another process may install packages too."""

import os
import re
import subprocess

import pytest

from provision.desired.packages import APT_INSTALL, APT_UPDATE
from tests.unit.join_test import bundle

LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)"


@pytest.fixture
def apt_get(tmp_path):
    """A function that runs a program; apt-get gives these answers first, and takes 100 s for each."""

    def program(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        path.chmod(0o755)

    calls, answers, clock = (tmp_path / name for name in ("calls", "answers", "clock"))
    clock.write_text("0")
    program("date", "cat clock")
    program("sleep", "echo $(($(cat clock) + 100)) >clock")
    program("find", ":")
    program("touch", ":")
    program(
        "apt-get",
        'echo "$@" >>calls\nread -r said <answers || exit 0\nsed -i 1d answers\n'
        'echo "$said" >&2\nexit 100',
    )

    def run(script, *arguments, said=()):
        calls.unlink(missing_ok=True)
        answers.write_text("".join(f"{line}\n" for line in said))
        done = subprocess.run(
            ["sh", "-c", script, "sh", *arguments],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr, calls.read_text().splitlines()

    return run


def test_the_program_waits_for_holders_of_apts_locks(apt_get):
    assert apt_get(APT_UPDATE, said=[LOCKED, LOCKED]) == (0, "", ["-qq -y update"] * 3)
    code, _, (_, again) = apt_get(APT_INSTALL, "zstd", "nftables", said=[LOCKED])
    assert (code, again.split()[-4:]) == (
        0,
        ["--no-install-recommends", "install", "zstd", "nftables"],
    )


def test_but_not_for_longer_than_five_minutes(apt_get):
    code, error, calls = apt_get(APT_UPDATE, said=[LOCKED] * 9)

    assert (code, error, len(calls)) == (1, f"{LOCKED}\n", 4)


@pytest.mark.parametrize("program", [APT_UPDATE, APT_INSTALL])
def test_any_other_error_is_one_at_once(apt_get, program):
    said = "E: Unable to locate package zstd"

    code, error, calls = apt_get(program, said=[said, said])

    assert (code, error, len(calls)) == (1, f"{said}\n", 1)


def test_machines_that_join_by_themselves_wait_too():
    program = bundle().program.decode()

    assert re.findall("^(update|install)=", program, re.MULTILINE) == ["update", "install"]
    assert "apt-get -qq -o" not in program
