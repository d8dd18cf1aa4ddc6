"""How packages are installed while another process may install packages too."""

import os
import re
import subprocess

import pytest

from provision.desired.packages import APT_INSTALL
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
    program("touch", ":")
    program("systemctl", 'echo systemctl "$@" >>calls')
    program(
        "apt-get",
        'echo "$@" >>calls\nread -r said <answers || exit 0\nsed -i 1d answers\n'
        'echo "$said" >&2\nexit 100',
    )

    def run(script, *arguments, said=(), find=":"):
        program("find", find)
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


UPDATE = "-qq -y update"
FRESH = "echo stamp"  # of the program find: the lists of packages are not older than an hour


def test_the_program_waits_for_holders_of_apts_locks(apt_get):
    assert apt_get(APT_INSTALL, said=[LOCKED, LOCKED])[2][:3] == [UPDATE] * 3
    code, _, (_, again) = apt_get(APT_INSTALL, "zstd", "nftables", said=[LOCKED], find=FRESH)
    assert (code, again.split()[-4:]) == (
        0,
        ["--no-install-recommends", "install", "zstd", "nftables"],
    )


@pytest.mark.parametrize("find", [":", FRESH])
def test_but_not_for_longer_than_five_minutes(apt_get, find):
    code, error, calls = apt_get(APT_INSTALL, said=[LOCKED] * 9, find=find)

    assert (code != 0, error, len(calls)) == (True, f"{LOCKED}\n", 4)


def test_any_other_error_of_the_installation_is_one_at_once(apt_get):
    said = "E: Unable to locate package zstd"

    code, error, calls = apt_get(APT_INSTALL, "zstd", said=[said, said], find=FRESH)

    assert (code, error, len(calls)) == (1, f"{said}\n", 1)


BROKEN = "E: The repository 'http://ppa.invalid noble Release' does not have a Release file."


def test_a_broken_source_is_an_error_only_if_the_packages_cannot_be_installed(apt_get):
    code, error, calls = apt_get(APT_INSTALL, "zstd", said=[BROKEN])
    assert (code, error, calls[0]) == (0, f"{BROKEN}\n", UPDATE)
    assert calls[1].endswith("install zstd")

    lost = "E: Unable to locate package zstd"
    code, error, _ = apt_get(APT_INSTALL, "zstd", said=[BROKEN, lost])
    assert (code, error) == (1, f"{BROKEN}\n{lost}\n")


@pytest.mark.parametrize("said", [(), ("E: no",)])
def test_the_distributions_units_are_masked_while_their_packages_are_installed(apt_get, said):
    _, _, calls = apt_get(APT_INSTALL, "zstd", "bird2", "haproxy", said=said, find=FRESH)

    units = "bird.service haproxy.service"
    assert calls[0] == f"systemctl --quiet --runtime mask {units}"
    assert calls[1].endswith("install zstd bird2 haproxy")
    assert calls[2:] == [f"systemctl --quiet --runtime unmask {units}"]


def test_machines_that_join_by_themselves_wait_too():
    program = bundle().program.decode()

    assert re.findall("^(update|install)=", program, re.MULTILINE) == ["install"]
    assert "apt-get -qq -o" not in program
