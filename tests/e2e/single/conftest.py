"""One machine that is master and worker, for all tests of this folder.

first_up_test.py comes first, because it needs a machine without a cluster. At the end of
snapshots_test.py, the cluster is restored from a snapshot on a new machine. unwanted_test.py works
with any cluster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from provision import inventory
from provision.machines.lab import Lab as LabSource
from provision.model.cluster import Ssh
from tests.e2e.conftest import Lab, cluster, run

COPIES = "/srv/copies"


def set_inventory(**settings: object) -> None:
    """Add settings to the inventory's own."""
    os.environ["TEST_SINGLE"] = json.dumps(settings)


def ssh_of(lab: Lab) -> Ssh:
    """The operator's SSH access to the machine."""
    return LabSource().locate(inventory.read(lab.inventory))["n1"].ssh


@pytest.fixture(scope="package")
def machine() -> Iterator[Lab]:
    """The machine. It has no cluster until a test uses the fixture `lab`."""
    for lab in cluster("single"):
        lab.clusterctl("machines up")
        yield lab


@pytest.fixture(scope="package")
def lab(machine: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The running cluster. Copies of snapshots go over SSH to a directory of the same machine."""
    key = tmp_path_factory.mktemp("key") / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    public = key.with_suffix(".pub").read_text().strip()
    machine.on(
        "n1", f"mkdir -p -m 700 /root/.ssh {COPIES}; echo {public} >>/root/.ssh/authorized_keys"
    )
    ssh = ssh_of(machine)
    to = f"ssh://root@{ssh.hostname}{COPIES}"
    set_inventory(backup={"keep": 2, "to": to, "ssh_key": str(key), "ssh_host_key": ssh.host_key})
    machine.up()
    yield machine
    set_inventory()
