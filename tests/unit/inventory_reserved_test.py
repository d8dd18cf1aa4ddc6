"""A flag that clusterctl renders from a setting is reserved, or `extra_args` replaces it aloud."""

import re
from ipaddress import IPv4Network
from typing import get_args, get_origin

import pytest
import yaml

from provision.desired import catalog
from provision.inventory import read
from provision.inventory.removed import FLAGS, known_flags
from provision.inventory.reserved import REPLACED, RESERVED
from provision.inventory.settings import ClusterData
from provision.inventory.wording import example
from provision.model.cluster import Files
from provision.model.errors import InventoryError
from provision.model.settings.ec2 import Ec2
from tests.unit.inventory_hints_test import walk
from tests.world import LAB, cluster, trust

NETWORKS = {"pods": "10.32.0.0/14", "services": "10.128.0.0/16"}
# Fields of configuration files whose flag has another name.
NAMES = {"mode": "proxy-mode"}


def others(path, field):
    """Give values that differ from the default."""
    default = field.get_default(call_default_factory=True)
    if get_origin(field.annotation) is not None and isinstance(default, str):
        return [choice for choice in get_args(field.annotation) if choice != default]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int | float):
        return [default + 1]
    if isinstance(default, IPv4Network):
        return [NETWORKS.get(path[-1], "172.16.0.0/16")]
    if path == ("networks", "domain"):
        return ["example.test"]
    return [example(field)] if field.examples else []


def variants():
    """Give (what was set, cluster), one setting changed in each."""
    of_files = {"extra_args", "machines"}
    for path, field in walk(ClusterData):
        if hasattr(field.annotation, "model_fields") or path[0] in of_files:
            continue
        for value in others(path, field):
            raw = {path[0]: value} if len(path) == 1 else {path[0]: {path[1]: value}}
            given = ClusterData.model_validate({"name": "demo", **raw})
            files = Files(manifests=("",) * len(given.networks.manifests))
            of = cluster(**{path[0]: getattr(given, path[0]), "files": files})
            yield f"{'.'.join(path)}={value}", of
    yield "machines=ec2", cluster(source="ec2", ec2=Ec2(region="r", bucket="b"), api={})


def flags_of(of):
    """(component, flag) -> value, of the first master's command lines and configuration files."""
    found = {}
    machine = of.machine("m1")
    for component in catalog.COMPONENTS:
        if component.name not in RESERVED or not component.wanted(of, machine):
            continue
        for file in component.state(of, machine, trust(), LAB).files:
            text = file.content.decode()
            if file.path.endswith(f"{component.name}.service"):
                for flag, value in re.findall(r"--([a-z-]+)=(\S*)", text):
                    found[component.name, flag] = value
            elif re.search("^kind: Kube(let|Proxy)Configuration$", text, re.M):
                for key, value in yaml.safe_load(text).items():
                    kebab = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", key).lower()
                    found[component.name, NAMES.get(kebab, kebab)] = value
    return found


def test_each_flag_that_follows_from_a_setting_is_reserved_or_named_as_replaced():
    base = flags_of(cluster())
    assert ("kube-apiserver", "service-cluster-ip-range") in base
    assert ("kubelet", "cluster-dns") in base

    followed = {}
    for name, of in variants():
        changed = flags_of(of)
        there = {component for component, _ in changed}  # kube-proxy can be left out
        for key in base.keys() | changed.keys():
            if key[0] in there and base.get(key) != changed.get(key):
                followed.setdefault(key, name)

    known = {(c, f) for table in (RESERVED, REPLACED) for c, flags in table.items() for f in flags}
    assert {key: name for key, name in followed.items() if key not in known} == {}
    assert len(followed) > 5


def test_no_flag_is_both():
    for component, flags in REPLACED.items():
        assert not flags.keys() & RESERVED[component].keys()


@pytest.mark.parametrize(
    ("component", "flag"), [(c, flag) for c, flags in REPLACED.items() for flag in flags]
)
def test_a_flag_that_replaces_a_setting_is_a_warning(tmp_path, component, flag):
    path = tmp_path / "inventory.py"
    path.write_text(
        f'cluster = {{"name": "demo", "extra_args": {{"{component}": {{"{flag}": "x"}}}}}}\n'
        'masters = [("m1", {"ssh_hostname": "192.0.2.1"})]\n'
    )

    (warning,) = read(path).warnings

    assert warning.where == f"cluster.extra_args.{component}.{flag}"
    assert REPLACED[component][flag] in warning.what
    assert not warning.fatal


def with_flag(tmp_path, kubernetes, component, flag, value="x"):
    path = tmp_path / "inventory.py"
    path.write_text(
        f'cluster = {{"name": "demo", "kubernetes": "{kubernetes}",\n'
        f'    "extra_args": {{"{component}": {{"{flag}": "{value}"}}}}}}\n'
        'masters = [("m1", {"ssh_hostname": "192.0.2.1"})]\n'
    )
    return path


@pytest.mark.parametrize(
    ("component", "flag"),
    [(c, flag) for flags in FLAGS.values() for c, names in flags.items() for flag in sorted(names)],
)
def test_a_flag_that_the_version_no_longer_has_is_refused(tmp_path, component, flag):
    read(with_flag(tmp_path, "1.36.4", component, flag))
    with pytest.raises(InventoryError, match=f"1.37.1 does not have the flag --{flag}"):
        read(with_flag(tmp_path, "1.37.1", component, flag))


def test_a_feature_gate_that_the_version_no_longer_has_is_refused_by_name(tmp_path):
    gates = "SidecarContainers=true,HPAScaleToZero=true, AnyVolumeDataSource=false"
    read(with_flag(tmp_path, "1.36.4", "kubelet", "feature-gates", gates))
    with pytest.raises(InventoryError) as caught:
        read(with_flag(tmp_path, "1.37.1", "kubelet", "feature-gates", gates))
    assert "AnyVolumeDataSource, the feature gate SidecarContainers" in str(caught.value)
    assert "HPAScaleToZero" not in str(caught.value)
    read(with_flag(tmp_path, "1.37.1", "etcd", "feature-gates", "SidecarContainers=true"))


@pytest.mark.parametrize("version", ["1.36.4", "1.37.1"])
def test_a_flag_that_the_version_does_not_name_is_a_warning_with_the_nearest_name(
    tmp_path, version
):
    (warning,) = read(with_flag(tmp_path, version, "kubelet", "max-pod")).warnings
    assert not warning.fatal
    assert f"kubelet {version} does not name this flag" in warning.what
    assert "'max-pods'?" in warning.hint
    assert read(with_flag(tmp_path, version, "kubelet", "max-pods")).warnings == ()


def test_the_known_flags_contain_all_that_clusterctl_sets_and_none_that_were_removed():
    new, old = known_flags("1.37"), known_flags("1.36")
    # flags_of also has fields of the files of kubelet and kube-proxy.
    only_flags = new.keys() - {"kubelet", "kube-proxy"}
    for component, flag in flags_of(cluster()):
        assert component not in only_flags or flag in new[component]
    for component, flags in FLAGS[37].items():
        assert flags <= old[component]
        assert not flags & new[component]
