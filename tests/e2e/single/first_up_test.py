"""The first `up`: a second operator is refused; a killed run does not block the next run.

tests/integration/lock_test.py tests an operator whose computer is frozen.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import CLUSTERCTL, Lab, until
from tests.e2e.single.conftest import ssh_of

pytestmark = pytest.mark.e2e


@pytest.fixture
def colleague(machine: Lab, tmp_path: Path) -> Lab:
    """The same machine, from the computer of an operator who has never used it."""
    ssh = ssh_of(machine)
    data = {"ssh_hostname": ssh.hostname, "ssh_key": str(ssh.key), "ssh_host_key": ssh.host_key}
    path = tmp_path / "theirs.py"
    text = machine.inventory.read_text().replace('"machines": "lab",', "")
    path.write_text(text.replace('masters = ["n1"]', f"masters = [('n1', {data!r})]"))
    return Lab(path)


@contextmanager
def working(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """A running `up` that has begun to change this lab."""
    run = subprocess.Popen(
        [CLUSTERCTL, "up", lab.inventory, "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    locked = f"grep -q $'\\t{run.pid}\\t' /run/clusterctl.lock 2>/dev/null && echo yes || true"
    try:
        until("it holds the lock", lambda: lab.on("n1", f"bash -c {locked!r}").strip())
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


def test_a_second_operator_is_refused_but_a_killed_run_blocks_no_other(
    machine: Lab, colleague: Lab
) -> None:
    assert machine.on("n1", "ls -d /etc/kubernetes 2>/dev/null || true") == "", "not the first up"
    with working(machine) as run:
        # Only commands that are refused quickly: the first `up` ends by itself in half a minute.
        for command in (("up", "--yes"), ("certs renew", "--all", "--yes")):
            refused = colleague.clusterctl(*command, check=False)
            assert refused.returncode == 5
            assert f"(process {run.pid})" in refused.stderr
            assert f"clusterctl up {machine.inventory}" in refused.stderr
            assert f"clusterctl unlock {colleague.inventory}" in refused.stderr
        os.killpg(run.pid, signal.SIGKILL)

    machine.up()

    assert machine.on("n1", "ls /run/clusterctl.lock 2>&1 || true").endswith(
        "No such file or directory\n"
    )
