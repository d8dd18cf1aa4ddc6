"""Faults of the drill, also of workers, from which the shared cluster recovers quickly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from provision.drill.harm import power_off
from provision.drill.site import Site, open_site
from tests.e2e import faults
from tests.e2e.conftest import Lab
from tests.e2e.survival import NAMED, survives

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site(ha: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The shared cluster with a namespace for the writes. At the end it must be healthy."""
    site = open_site(ha.inventory, tmp_path_factory.mktemp("drill") / "kubeconfig")
    site.make_namespace()
    yield site
    site.remove_namespace()
    assert ha.clusterctl("status", check=False).returncode == 0


def lead(site: Site, name: str) -> None:
    """Make this machine etcd's leader."""
    leader = site.cluster.machine(site.leader())
    if leader.name != name:
        members = json.loads(site.etcdctl(leader, "member list -w json"))["members"]
        (number,) = [member["ID"] for member in members if member["name"] == name]
        site.etcdctl(leader, f"move-leader {number:x}")


def test_the_first_master_of_the_file_can_die_while_it_leads_etcd(
    site: Site, ha: Lab, tmp_path: Path
) -> None:
    def die(_: Site, machine: str) -> None:
        power_off(site, machine)
        assert ha.clusterctl("status", check=False).returncode == 11

    def pods() -> str:
        return ha.kubectl("get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}").stdout

    before = pods()
    lead(site, "m1")
    survives(
        replace(NAMED["leader-off"], victim=lambda _: "m1", inflict=die),
        site,
        ha,
        tmp_path / "log",
    )
    assert pods() == before


@pytest.mark.parametrize("name", faults.tests(faults.SHARED))
def test_a_cluster_survives(name: str, site: Site, ha: Lab, tmp_path: Path) -> None:
    survives(NAMED[name], site, ha, tmp_path / "log")
