"""The lock, over real SSH servers: two operators, and an operator whose run is killed or frozen."""

import os
import pwd
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from provision.apply.lock import hold, holders, unlock
from provision.apply.session import open_session
from provision.desired.lock_programs import take
from provision.local.operators import this_operator
from provision.local.progress import Silent
from provision.model.errors import RefusedError
from provision.model.holder import Holder

# Another operator: a separate process that prints a line when it holds the lock.
OTHER = """
import sys
from gevent import monkey; monkey.patch_all()
from pathlib import Path
from time import sleep
from provision.desired.lock_programs import take
from provision.model.holder import Holder
from provision.apply.lock import hold
from provision.local.progress import Silent
from provision.apply.session import open_session
with open_session(Path(sys.argv[1]), Silent()) as session:
    with hold(session, "down", lock=sys.argv[2]):
        print("held", flush=True)
        sleep(300)
"""


@pytest.fixture
def lock(tmp_path):
    return str(tmp_path / "lock")


@pytest.fixture
def inventory(ground, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SUDO_USER", "alice")
    server = ground.servers[0]
    data = {
        "ssh_hostname": "127.0.0.1",
        "ssh_port": server.port,
        "ssh_user": pwd.getpwuid(os.getuid()).pw_name,
        "ssh_key": str(ground.key),
        "ssh_host_key": server.host_key,
        "address": "192.0.2.1",
    }
    path = tmp_path / "one.py"
    path.write_text(f"cluster = {{'name': 'one'}}\nmasters = [('m1', {data!r})]\n")
    return path


@pytest.fixture
def session(inventory):
    with open_session(inventory, Silent()) as session:
        yield session


@pytest.fixture
def other(inventory, lock, monkeypatch):
    environment = {**os.environ, "SUDO_USER": "bob"}
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, inventory, lock],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_second_operator_is_refused_and_sees_who_holds_the_lock(session, other, lock, inventory):
    with pytest.raises(RefusedError) as caught, hold(session, "up", lock=lock):
        pytest.fail("two at once")
    assert f"bob@{os.uname().nodename} (process {other.pid})" in caught.value.message
    assert f"clusterctl down {inventory}" in caught.value.message
    assert f"clusterctl unlock {inventory}" in caught.value.hint


def test_a_refused_operator_leaves_the_lock_alone(session, other, lock):
    with pytest.raises(RefusedError), hold(session, "up", lock=lock):
        pass
    assert [holder.user for holder in holders(session, lock=lock).values()] == ["bob"]


def test_a_holder_that_is_killed_is_followed_at_once(session, other, lock):
    other.kill()
    other.wait()
    until(lambda: not holders(session, lock=lock), 10)
    with hold(session, "up", lock=lock):
        assert [holder.user for holder in holders(session, lock=lock).values()] == ["alice"]
    assert not Path(lock).exists()


def test_ctrl_c_gives_the_lock_back(session, other, lock):
    other.send_signal(signal.SIGINT)
    other.wait(timeout=10)
    assert holders(session, lock=lock) == {}
    assert not Path(lock).exists()


def test_the_lock_of_a_run_that_died_on_this_computer_is_free_at_once(session, lock):
    with subprocess.Popen(["true"]) as dead:
        pass
    mine = replace(this_operator("clusterctl up"), pid=dead.pid)
    with subprocess.Popen(
        ["sh", "-c", take(mine, lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as left:
        assert left.stdout.readline() == b"held\n"
        with hold(session, "up", lock=lock):
            assert [holder.pid for holder in holders(session, lock=lock).values()] == [os.getpid()]
    assert not Path(lock).exists()


def test_the_lock_of_a_run_that_died_elsewhere_stays(session, lock):
    elsewhere = Holder("bob", os.uname().nodename, 1, "clusterctl up", computer="another/1")
    with subprocess.Popen(
        ["sh", "-c", take(elsewhere, lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        assert living.stdout.readline() == b"held\n"
        with pytest.raises(RefusedError, match="bob@"), hold(session, "up", lock=lock):
            pass
        living.communicate()


def test_a_frozen_holder_can_be_unlocked_by_hand(session, other, lock):
    other.send_signal(signal.SIGSTOP)
    unlock(session, holders(session, lock=lock), lock=lock)
    with hold(session, "up", lock=lock):
        pass


def test_a_living_run_whose_lock_is_taken_away_stops(session, other, lock):
    unlock(session, holders(session, lock=lock), lock=lock)
    _, error = other.communicate(timeout=20)
    assert other.returncode != 0
    assert "removed this run's lock" in error


def test_a_run_whose_connection_breaks_locks_again_and_goes_on(session, lock, ground):
    with hold(session, "up", lock=lock):
        before = Path(lock).read_text()
        ground.servers[0].stop()
        until(lambda: not Path(lock).exists())
        ground.servers[0].start()
        until(lambda: Path(lock).exists() and Path(lock).read_text() not in {"", before})
        assert [holder.user for holder in holders(session, lock=lock).values()] == ["alice"]
    assert not Path(lock).exists()


def test_a_run_takes_its_own_lock_over_where_the_machine_has_not_heard_of_the_break(session, lock):
    with hold(session, "up", lock=lock):
        before = Path(lock).read_text()
        taker = psutil.Process(int(before.split("\t")[5]))
        sshd = next(p for p in taker.parents() if p.name().startswith("sshd"))
        sshd.suspend()
        session.engine.close()
        try:
            until(lambda: Path(lock).exists() and Path(lock).read_text() not in {"", before})
            assert [holder.pid for holder in holders(session, lock=lock).values()] == [os.getpid()]
            assert not taker.is_running()
        finally:
            sshd.resume()
    assert not Path(lock).exists()


def test_a_run_that_reconnects_and_finds_another_operators_lock_stops(session, lock, ground):
    def locked_by_another_meanwhile():
        with hold(session, "up", lock=lock):
            ground.servers[0].stop()
            until(lambda: not Path(lock).exists())
            thief = subprocess.Popen(
                ["sh", "-c", take(Holder("bob", "desk", 1, "clusterctl down"), lock)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            try:
                assert thief.stdout.readline() == b"held\n"
                ground.servers[0].start()
                time.sleep(60)
            finally:
                thief.communicate()

    with pytest.raises(RefusedError, match="another operator works on this cluster: bob@desk"):
        locked_by_another_meanwhile()
