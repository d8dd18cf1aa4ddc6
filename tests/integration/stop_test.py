"""Ctrl-C and similar signals: the command always unwinds, and its exit code shows the reason."""

import os
import pty
import signal
import subprocess
import sys

import pytest

# A command that prints a line when it waits, and a line when it unwinds.
COMMAND = """
import sys, threading, time
from gevent import monkey; monkey.patch_all()  # as `run` does before any of these imports
from provision import __main__ as program
import typer
from provision.cli.app import app

def busy():
    # As a connection that receives: always the one that runs, and it keeps what is raised there.
    while True:
        try:
            while True:
                sum(range(20_000))
                time.sleep(0)
        except BaseException:
            pass

@app.command()
def wait(at: str) -> None:
    if at == "busy":
        threading.Thread(target=busy, daemon=True).start()
    time.sleep(0.01)  # gevent imports what it needs for that: an import is a bad place to stop
    try:
        print("waits", flush=True)
        typer.confirm("Go on?", abort=True) if at == "prompt" else time.sleep(100)
    finally:
        print("unwound", flush=True)

program.run()
"""


@pytest.fixture
def waiting():
    processes = []
    master, slave = pty.openpty()

    def start(at, hangup=signal.SIG_DFL):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "wait", at],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # The tests themselves may run under nohup.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),  # noqa: PLW1509
        )
        processes.append(process)
        assert process.stdout.readline() == "waits\n"
        if at == "prompt":
            assert process.stdout.read(6) == "Go on?"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("at", ["busy", "idle", "prompt"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_command_that_is_stopped_unwinds(waiting, at, number, code):
    process = waiting(at)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert out.endswith("unwound\n")
    assert "Traceback" not in err


def test_with_nohup_a_command_goes_on_when_its_terminal_closes(waiting):
    process = waiting("idle", hangup=signal.SIG_IGN)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
