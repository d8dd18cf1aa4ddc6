"""The programs that wait for etcd: which answers they wait for, and which they report."""

import subprocess

import pytest

from provision.apply.programs import program


def run(name, **parameters):
    return subprocess.run(
        ["sh", "-c", program(name, **parameters)], capture_output=True, text=True, check=False
    )


def etcdctl(tmp_path, *answers, patience="30"):
    """Run the program with an etcdctl that fails with these answers, and then succeeds."""
    for index, answer in enumerate(answers):
        (tmp_path / str(index)).write_text(answer)
    count = f"n=$(cat {tmp_path}/count 2>/dev/null || echo 0); echo $((n + 1)) >{tmp_path}/count"
    command = f"{count}; [ -e {tmp_path}/$n ] || exit 0; cat {tmp_path}/$n >&2; exit 1"
    done = run("etcdctl", command=command, patience=patience)
    return done, int((tmp_path / "count").read_text())


@pytest.mark.parametrize(
    "answer",
    [
        "etcdserver: unhealthy cluster",
        "etcdserver: re-configuration failed due to not enough started members",
        "etcdserver: can only promote a learner member which is in sync with leader",
        "etcdserver: too many learner members in cluster",
        "etcdserver: request timed out, possibly due to connection lost: timeout",
        "etcdserver: leader changed",
    ],
)
def test_etcdctl_is_repeated_while_etcd_answers_that_it_is_too_early(tmp_path, answer):
    done, times = etcdctl(tmp_path, answer, answer)
    assert (done.returncode, done.stderr) == (0, "")
    assert times == 3


@pytest.mark.parametrize(
    "answer", ["etcdserver: member not found", "etcdserver: can only promote a not a learner"]
)
def test_a_step_that_a_killed_run_did_already_succeeds(tmp_path, answer):
    done, times = etcdctl(tmp_path, answer)
    assert done.returncode == 0
    assert times == 1


def test_another_error_of_etcd_is_reported_at_once(tmp_path):
    done, times = etcdctl(tmp_path, "etcdserver: permission denied\n")
    assert (done.returncode, done.stderr) == (1, "etcdserver: permission denied\n")
    assert times == 1


def test_after_the_limit_the_last_answer_is_reported(tmp_path):
    done, times = etcdctl(tmp_path, "etcdserver: unhealthy cluster\n", patience="0")
    assert (done.returncode, done.stderr) == (1, "etcdserver: unhealthy cluster\n")
    assert times == 1


def test_the_member_is_waited_for_until_its_check_succeeds(tmp_path):
    mark = tmp_path / "mark"
    done = run("member", health=f"[ -e '{mark}' ] || {{ touch '{mark}'; false; }}", patience="30")
    assert (done.returncode, done.stderr) == (0, "")
    assert mark.exists()


def test_a_member_that_never_answers_is_reported():
    done = run("member", health="echo 'a detail' >&2; false", patience="0")
    assert (done.returncode, done.stderr) == (1, "it does not answer as a member\n")
