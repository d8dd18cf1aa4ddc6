"""Which artifacts a cluster needs."""

from pathlib import Path

from provision.artifacts import pins
from provision.artifacts.images import IMAGES
from provision.commands.converge import artifacts_for, wanted
from provision.inventory import read
from provision.model.settings.network import Networks
from tests.world import DEFAULT, cluster, trust

INVENTORIES = Path(__file__).parents[2] / "inventories"


def test_every_artifact_is_wanted_once_for_each_architecture():
    found = wanted(DEFAULT, trust(), {"arm64", "amd64"})

    names = {name for name, _ in found}
    assert len(found) == len(set(found)) == 2 * len(names)
    assert names - {IMAGES} <= {pin.name for pin in pins(DEFAULT.kubernetes)}
    assert {"kubernetes/kubelet", "etcd/etcd", "registry/registry", IMAGES} <= names


def test_without_kube_proxy_it_is_not_wanted():
    without = cluster(networks=Networks(proxy_mode="none"))

    assert ("kubernetes/kube-proxy", "amd64") in wanted(DEFAULT, trust(), ["amd64"])
    assert ("kubernetes/kube-proxy", "amd64") not in wanted(without, trust(), ["amd64"])


def test_the_artifacts_are_known_before_the_machines_exist(tmp_path):
    lab = artifacts_for(read(INVENTORIES / "ha.py"), ["amd64"])

    assert lab == wanted(DEFAULT, trust(), ["amd64"])
