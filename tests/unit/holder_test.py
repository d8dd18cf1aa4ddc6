from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.desired.lock_programs import free, inspect, parse, take
from provision.model.holder import Holder

ME = Holder("alice", "laptop", 4711, "clusterctl up inventories/ha.py", computer="boot/1")
OTHER = Holder("bob", "desk", 12, "clusterctl down inventories/ha.py")

Taker = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def lock(tmp_path: Path) -> str:
    return str(tmp_path / "it's a lock")


@pytest.fixture
def taking(lock: str) -> Iterator[Taker]:
    """Start the program that takes the lock, as sshd would."""
    started = []

    def start(who: Holder, life: float = 60) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["sh", "-c", take(who, lock, life)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.communicate(timeout=10)


def said(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=False)


def keeper(lock: str) -> int:
    return int(Path(lock).read_text().split("\t")[5])


def test_a_free_lock_is_taken_and_given_back_without_a_trace(taking, lock):
    first = taking(ME)
    assert said(first) == "held"
    first.communicate(timeout=10)
    assert first.returncode == 0
    assert not Path(lock).exists()


def test_a_second_run_sees_who_holds_the_lock(taking):
    assert said(taking(ME)) == "held"
    holder = parse(said(taking(OTHER)))
    assert (holder.user, holder.host, holder.pid) == ("alice", "laptop", 4711)
    assert holder.command == "clusterctl up inventories/ha.py"
    assert holder.computer == "boot/1"
    assert abs(holder.began - time.time()) < 60


def test_a_lock_that_was_given_back_is_taken_by_the_next(taking):
    first = taking(ME)
    assert said(first) == "held"
    first.communicate(timeout=10)
    assert said(taking(OTHER)) == "held"


def test_a_holder_that_was_killed_has_lost_its_lock_at_once(taking, lock):
    first = taking(ME)
    assert said(first) == "held"
    os.kill(keeper(lock), signal.SIGKILL)
    first.wait(timeout=10)
    assert Path(lock).exists()
    assert said(taking(OTHER)) == "held"
    assert Path(lock).read_text().startswith("bob\t")


def test_a_holder_that_is_silent_loses_its_lock_after_its_time(taking):
    assert said(taking(ME, life=1)) == "held"
    deadline = time.monotonic() + 30
    while (answer := said(taking(OTHER))) != "held":
        assert parse(answer).user == "alice"
        assert time.monotonic() < deadline


def test_signs_of_life_keep_the_lock(taking):
    first = taking(ME, life=2)
    assert said(first) == "held"
    for _ in range(6):
        first.stdin.write("\n")
        first.stdin.flush()
        time.sleep(0.5)
    assert parse(said(taking(OTHER))).user == "alice"


def test_only_one_of_many_at_once_gets_it(taking):
    answers = [said(process) for process in [taking(ME) for _ in range(8)]]
    assert sorted(answer.split("\t")[0] for answer in answers) == ["busy"] * 7 + ["held"]


def test_looking_tells_the_holder_and_takes_nothing(taking, lock):
    assert run(inspect(lock)).stdout == ""
    assert not Path(lock).exists()
    assert said(taking(ME)) == "held"
    assert parse(run(inspect(lock)).stdout).user == "alice"
    assert parse(run(inspect(lock)).stdout).user == "alice"


def test_freeing_ends_the_holders_program_and_tells_it_why(taking, lock):
    first = taking(ME)
    assert said(first) == "held"
    assert run(free(lock)).returncode == 0
    assert first.wait(timeout=10) == 128 + signal.SIGTERM
    assert not Path(lock).exists()
    assert said(taking(OTHER)) == "held"


def test_freeing_a_free_lock_kills_no_process(lock):
    with subprocess.Popen(["sleep", "60"]) as stranger:
        Path(lock).write_text(f"alice\tlaptop\t1\tup\t0\t{stranger.pid}\n")
        assert run(free(lock)).returncode == 0
        assert stranger.poll() is None
        stranger.kill()
    assert not Path(lock).exists()


def test_freeing_kills_no_process_but_the_holder(taking, lock):
    assert said(taking(ME)) == "held"
    with subprocess.Popen(["sleep", "60"]) as stranger:
        # As it is for a moment after a new holder has come: the text is still the old one's.
        Path(lock).write_text(f"alice\tlaptop\t1\tup\t0\t{stranger.pid}\n")
        done = run(free(lock))
        assert stranger.poll() is None
        stranger.kill()
    assert done.returncode == 1
    assert parse(done.stdout) is not None


def test_no_operators_name_breaks_the_line(taking, tmp_path):
    name = f"o'neil\t\n\"$(touch {tmp_path}/made)`touch {tmp_path}/made`"
    assert said(taking(Holder(name, "host", 1, "clusterctl up"))) == "held"
    holder = parse(said(taking(OTHER)))
    assert (holder.user, holder.pid) == (" ".join(name.split()), 1)
    assert not (tmp_path / "made").exists()


def test_a_holder_that_has_written_nothing_yet_is_an_unknown_user():
    holder = parse("busy\t1000\t990\t\n")
    assert (holder.user, holder.silent) == ("unknown", 10)


def test_a_clock_that_was_set_back_gives_no_negative_times():
    holder = parse("busy\t1000\t2000\tbob\tdesk\t7\tup\t3000\t99\n")
    assert (holder.since, holder.silent) == (0, 0)


def test_a_holder_is_described_in_one_line():
    holder = Holder("bob", "desk", 12, "clusterctl up x.py", 1_700_000_000, 7260, 4)
    assert str(holder) == (
        "bob@desk (process 12): clusterctl up x.py, begun 2023-11-14 22:13:20 UTC, "
        "2 h 1 min ago, last heard of 4 s ago"
    )


@pytest.mark.parametrize(
    ("dialect", "program"),
    [
        ("sh", inspect()),
        ("sh", take(ME)),
        ("sh", free()),
        ("bash", shlex.split(take(ME))[2].removesuffix(";")),
        ("bash", shlex.split(free())[2].removesuffix(";")),
    ],
)
def test_shellcheck_has_nothing_to_say_about_the_programs(dialect, program):
    done = subprocess.run(
        ["shellcheck", "-s", dialect, "-"],
        input=program,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert done.returncode == 0
