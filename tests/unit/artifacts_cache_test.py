import os
import subprocess
import sys
import time

import pytest

from provision.artifacts import cache


def test_a_file_that_is_replaced_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with cache.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing_behind(tmp_path):
    path = tmp_path / "deep" / "file"

    def fail():
        with cache.replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(path.parent.iterdir()) == []


def test_a_recorded_hash_holds_until_the_file_changes(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    assert cache.recorded(path) is None
    digest = cache.record(path)
    assert digest == subprocess.check_output(["sha256sum", path], text=True).split()[0]
    assert cache.recorded(path) == digest
    path.write_text("another")  # of the same size
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1))
    assert cache.recorded(path) is None
    path.unlink()
    assert cache.recorded(path) is None


def test_a_lock_is_waited_for_and_goes_with_the_process_that_holds_it(tmp_path):
    lock = tmp_path / "lock"
    program = (
        "import sys, time; from pathlib import Path; from provision.artifacts import cache\n"
        "with cache.locked(Path(sys.argv[1]), lambda: None):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, lock], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        told = []

        def waiting():
            told.append("waiting")
            holder.kill()

        with cache.locked(lock, waiting):
            assert told == ["waiting"]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
