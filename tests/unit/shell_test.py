"""Programs that have no golden file pass shellcheck too: those of EC2 and of etcd_programs."""

import shutil
import subprocess

import pytest

from provision.desired import catalog, etcd_programs
from provision.model.settings.ec2 import Ec2
from provision.model.settings.security import Certificates
from tests.world import DEFAULT, LAB, PLAIN, cluster, master, trust, worker

pytestmark = pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")

ON_EC2 = cluster(master("m1"), worker("w1"), source="ec2", ec2=Ec2(region="r", bucket="b"), api={})
EXTERNAL = cluster(certificates=Certificates(authority="external"))
M1 = DEFAULT.machine("m1")
# SC2154, SC2034: a program may have functions that it does not call.
LEFT_OUT = "SC2154,SC2034"


def on_machines():
    """Path -> text, of every shell program among the files of these machines."""
    programs = {}
    for name, of, facts in (("ec2", ON_EC2, PLAIN), ("external", EXTERNAL, LAB)):
        for one in (of.machine("m1"), of.machine("w1")):
            for state in catalog.desired(of, one, trust(), facts).values():
                for file in state.files:
                    if file.content.startswith((b"#!/bin/sh", b"#!/bin/bash")):
                        programs[f"{name} {one.name} {file.path}"] = file.content.decode()
    return programs


def of_etcd():
    programs = {
        "status": etcd_programs.status(DEFAULT, M1),
        "defrag": etcd_programs.defrag(DEFAULT, M1, "defrag"),
        "stop": etcd_programs.stop("sha256 1", ("etcd.service",)),
        "start": etcd_programs.start_member(DEFAULT, M1),
        "brought": etcd_programs.brought(etcd_programs.Target("sha256", 1, ("m1",))),
        "release": etcd_programs.release(),
        "clean": etcd_programs.clean(),
        "revision": etcd_programs.revision(),
        "rescue": etcd_programs.rescue(DEFAULT, M1),
    }
    return {name: f"#!/bin/sh\n{text}" for name, text in programs.items()}


PROGRAMS = on_machines() | of_etcd()


@pytest.mark.parametrize("name", PROGRAMS)
def test_shellcheck_finds_nothing(name):
    done = subprocess.run(
        ["shellcheck", "--severity=warning", f"--exclude={LEFT_OUT}", "-"],
        input=PROGRAMS[name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""


def test_there_are_the_programs_of_ec2():
    assert {path.rpartition("/")[2] for path in PROGRAMS if path.startswith("ec2 m1")} >= {
        "clusterctl-group",
        "clusterctl-instances",
        "clusterctl-vpc-routes",
    }
