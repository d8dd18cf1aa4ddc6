"""Three masters only, which are quick to build: killed runs, lost masters, lost quorum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.drill import interruption
from provision.drill.site import Site, open_site
from tests.e2e import faults
from tests.e2e.conftest import ETCDCTL, Lab, cluster
from tests.e2e.sample import long, sampled
from tests.e2e.survival import NAMED, survives

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from cluster("masters")


@pytest.fixture(scope="module")
def site(lab: Lab, kubectl_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The cluster. This creates it, unless the first test has done so."""
    lab.up()
    lab.kubectl_binary = kubectl_binary
    lab.kubeconfig = tmp_path_factory.mktemp("masters") / "kubeconfig"
    site = open_site(lab.inventory, lab.kubeconfig)
    site.make_namespace()
    return site


@long(125)
def test_the_next_up_finishes_one_that_was_killed_in_a_phase(lab: Lab) -> None:
    """Sampling chooses the phases. This test is first in the file: it creates the cluster."""
    wanted = sampled("up is killed in the phase")

    killed, last = interruption.kill_in_every_phase("up", lab.inventory, 1, "--yes", only=wanted)

    assert last.code == 0, last.err
    assert set(killed) == set(wanted)
    interruption.finished(lab.inventory)
    members = json.loads(lab.on("m1", f"{ETCDCTL} member list -w json"))["members"]
    assert sorted(member["name"] for member in members) == ["m1", "m2", "m3"]


@pytest.mark.parametrize("name", faults.tests(faults.MASTERS))
def test_three_masters_survive(name: str, site: Site, lab: Lab, tmp_path: Path) -> None:
    survives(NAMED[name], site, lab, tmp_path / "log")
