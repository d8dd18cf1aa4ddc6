"""Dead machines are replaced, machines are added and removed: one command each.

Each test leaves the shared cluster whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import ENGINE, ETCDCTL, Lab, containers, run, until
from tests.e2e.sample import long

pytestmark = pytest.mark.e2e


def voters(lab: Lab, machine: str) -> set[str]:
    """Names of the members that have started and may vote, from etcd's own list."""
    listed = lab.on(machine, f"{ETCDCTL} member list", check=False)
    rows = [line.split(", ") for line in listed.splitlines()]
    return {row[2] for row in rows if row[1] == "started" and row[-1] == "false"}


def ready(lab: Lab) -> set[str]:
    listed = lab.kubectl("get", "nodes", "--no-headers", check=False).stdout
    return {line.split()[0] for line in listed.splitlines() if re.search(r" Ready ", line)}


@contextmanager
def ssh_stopped(lab: Lab, machine: str) -> Iterator[None]:
    """The machine's SSH port is closed. Everything else keeps running."""
    run(ENGINE, "exec", lab.container(machine), "systemctl", "stop", "ssh.service", "ssh.socket")
    try:
        yield
    finally:
        run(ENGINE, "exec", lab.container(machine), "systemctl", "start", "ssh.service")


def test_up_leaves_an_unreachable_machine_out_and_maintains_the_others(
    ha: Lab,
) -> None:
    path = "/etc/kubernetes/scheduler.conf"
    mode = ha.on("m1", f"stat -c %a {path} && chmod 0644 {path}").strip()
    with ssh_stopped(ha, "w2"):
        planned = ha.clusterctl("plan", check=False)
        assert planned.returncode == 2
        assert "w2 is left out" in planned.stdout
        done = ha.clusterctl("up", "--yes", check=False)
        assert done.returncode == 6, done.stdout + done.stderr
        assert "w2 was left out" in done.stdout
    assert ha.on("m1", f"stat -c %a {path}").strip() == mode
    assert ha.clusterctl("up", "--yes").returncode == 0


@long(100)
def test_one_command_replaces_a_lost_master(ha: Lab) -> None:
    ha.kubectl("create", "configmap", "before-the-fire", "--from-literal=kept=yes")
    ha.destroy("m2")

    # `up` makes a new, empty machine in the lab, and then refuses to continue.
    refused = ha.clusterctl("up", "--yes", check=False)
    assert refused.returncode == 5, refused.stdout + refused.stderr
    assert "node replace" in refused.stderr
    assert voters(ha, "m1") == {"m1", "m2", "m3"}

    ha.clusterctl("node replace", "m2", "--yes")

    assert voters(ha, "m2") == {"m1", "m2", "m3"}
    until("all nodes Ready", lambda: ready(ha) == {"m1", "m2", "m3", "w1", "w2"}, 120)
    kept = ha.kubectl("get", "configmap", "before-the-fire", "-o", "jsonpath={.data.kept}")
    assert kept.stdout == "yes"
    ha.on("m2", f"{ETCDCTL} endpoint health --cluster")
    # Images that other tests have pushed.
    tags = "cd /var/lib/clusterctl/registry && find . -path '*/tags/*/current/link' | sort"
    assert ha.on("m2", tags) == ha.on("m1", tags)
    assert ha.clusterctl("plan", check=False).returncode == 0


def test_node_replace_refuses_a_healthy_machine(ha: Lab) -> None:
    refused = ha.clusterctl("node replace", "m1", "--yes", check=False)
    assert refused.returncode == 5
    assert "its etcd member is healthy" in refused.stderr
    assert "its Node is Ready" in refused.stderr
    assert voters(ha, "m2") == {"m1", "m2", "m3"}


def logins(ha: Lab) -> dict[str, int]:
    """Machine -> number of logins, from its sshd. 0: the machine does not exist yet."""
    counts = {}
    for name in ("m1", "m2", "m3", "w1", "w2"):
        there = ha.container(name) in containers()
        said = ha.on(name, "journalctl -q --no-pager -t sshd") if there else ""
        counts[name] = said.count("Accepted ")
    return counts


@long(65)
def test_a_worker_is_removed_and_added_again(ha: Lab) -> None:
    ha.clusterctl("node remove", "w2", "--yes")
    assert ready(ha) == {"m1", "m2", "m3", "w1"}
    assert ha.container("w2") not in containers()

    before = logins(ha)
    ha.clusterctl("node add", "w2")
    after = logins(ha)
    contacted = {name for name in after if after[name] != before[name]}
    assert "w2" in contacted
    assert "w1" not in contacted
    assert len(contacted) <= 3
    until("w2 Ready", lambda: "w2" in ready(ha))
    assert ha.clusterctl("plan", check=False).returncode == 0


def test_unsafe_commands_are_refused_and_change_nothing(ha: Lab) -> None:
    for arguments, why in (
        (("node remove", "w9", "--yes"), "has no machine 'w9'"),
        (("node replace", "w9", "--yes"), "has no machine 'w9'"),
        (("node add", "w9"), "has no machine 'w9'"),
        (("node remove", "m1", "m2", "--yes"), "refusing to remove several etcd members at once"),
    ):
        command, *names = arguments
        refused = ha.clusterctl(command, *names, check=False)
        assert refused.returncode == 5, arguments
        assert why in refused.stderr
    assert voters(ha, "m1") == {"m1", "m2", "m3"}
    assert ready(ha) == {"m1", "m2", "m3", "w1", "w2"}
