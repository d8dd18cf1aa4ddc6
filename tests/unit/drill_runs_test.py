"""A command that the drill follows: its phases, as they begin and end."""

import signal
import sys
import time

import pytest

from provision.drill import runs
from provision.drill.runs import Run
from provision.model.errors import UnhealthyError

# A command with two phases at once, the first of which waits for a file.
COMMAND = """
import sys, time
from pathlib import Path
events, path = sys.argv[sys.argv.index("--events") + 1], Path(sys.argv[-1])
from provision.local.events import Recorded
from provision.local.progress import Silent
progress = Recorded(Silent(), open(events, "a"))
with progress.phase("etcd", "start: members (two)", ("m1",)):
    with progress.phase("artifacts", "deliver", ("w1",)):
        print("warning: no phase (none)", file=sys.stderr)
    while not path.exists():
        time.sleep(0.01)
print("out")
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Put a program in the place of clusterctl."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} - \"$@\" <<'EOT'\n{COMMAND}\nEOT\n")
    program.chmod(0o755)
    monkeypatch.setattr(runs.sys, "executable", str(program))
    return tmp_path / "go"


def test_phases_come_as_they_begin_and_no_text_of_progress_is_one(command):
    run = Run("up", command)
    phases = run.phases()
    assert [next(phases), next(phases)] == ["etcd", "artifacts"]
    command.touch()
    assert list(phases) == []
    ended = run.wait(60).succeeded()
    assert (ended.out, ended.said) == ("out\n", "warning: no phase (none)")


def test_a_moment_within_a_phase_is_over_when_the_phase_ends(command):
    run = Run("up", command)
    assert "artifacts" in run.phases()
    run.within_phase("artifacts", 60)
    began = time.monotonic()
    run.within_phase("etcd", 0.2)
    assert time.monotonic() - began >= 0.2
    command.touch()
    run.within_phase("etcd", 60)
    assert run.wait(60).code == 0


def test_a_command_that_is_killed_tells_no_more_phases(command):
    run = Run("up", command)
    assert next(run.phases()) == "etcd"
    run.send(signal.SIGKILL)
    assert run.wait(60).code == -signal.SIGKILL
    assert list(run.phases())[:1] == ["etcd"]


def test_a_command_that_does_not_end_in_time_is_killed(command):
    run = Run("up", command)
    with pytest.raises(UnhealthyError, match="did not end within"):
        run.wait(0.1)
