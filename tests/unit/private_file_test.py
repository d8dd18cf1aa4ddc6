"""What must not stay on the operator's disk does not."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provision.local import private_file

# A command that is at work on a decrypted snapshot.
COMMAND = """
import sys, time
from pathlib import Path
import provision.__main__
from provision.local import private_file
from provision.cli import app

def main():
    with private_file.scratch(Path(sys.argv[1])) as directory:
        (directory / "plain").touch()
        try:
            print(directory, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            return 128 + 2

app.main = main
provision.__main__.run()
"""


@pytest.fixture
def command(tmp_path):
    """It, and where its snapshot is."""
    before = dict.fromkeys((signal.SIGHUP, signal.SIGTERM, signal.SIGINT), signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [signal.signal(*each) for each in before.items()],  # noqa: PLW1509
    )
    with process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_closed_terminal_ends_the_command_like_ctrl_c(command, number):
    process, scratch = command
    assert (scratch / "plain").exists()
    assert scratch.stat().st_mode & 0o777 == 0o700

    process.send_signal(number)

    assert process.wait(10) == 128 + number
    assert not scratch.exists()


def test_files_of_a_killed_run_are_removed_and_those_of_a_live_run_stay(command, tmp_path):
    process, scratch = command
    with private_file.scratch(tmp_path) as mine:
        private_file.sweep(tmp_path)
        assert scratch.exists()
        assert mine.exists()

        process.kill()
        process.wait()
        assert scratch.exists()
        (tmp_path / "known_hosts").touch()
        private_file.sweep(tmp_path)

        assert {p.name for p in tmp_path.iterdir()} == {mine.name, "known_hosts"}
    assert not mine.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["known_hosts"]
