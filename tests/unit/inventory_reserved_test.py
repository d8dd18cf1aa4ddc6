"""A flag that clusterctl renders from a setting is reserved, or `extra_args` replaces it aloud."""

import re
from ipaddress import IPv4Network
from typing import get_args, get_origin

import pytest
import yaml

from provision.desired import catalog, proxy_flags
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
NAMES = {"mode": "proxy-mode", "node-port-addresses": "nodeport-addresses"}


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
    if component != "kube-proxy":  # it ignores them in every version, since it has a --config
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
    assert read(with_flag(tmp_path, version, "kubelet", "max-pods", "50")).warnings == ()


def test_the_known_flags_contain_all_that_clusterctl_sets_and_none_that_were_removed():
    new, old = known_flags("1.37"), known_flags("1.36")
    # flags_of also has fields of the files of kubelet and kube-proxy.
    only_flags = new.keys() - {"kubelet", "kube-proxy"}
    for component, flag in flags_of(cluster()):
        assert component not in only_flags or flag in new[component]
    for component, flags in FLAGS[37].items():
        assert flags <= old[component]
        assert not flags & new[component]


def test_a_flag_that_kube_proxy_would_ignore_is_refused(tmp_path):
    ignored = {
        "ipvs-scheduler": "no field for this flag",
        "iptables-masquerade-bit": "no effect in the mode 'nftables'",
        "conntrack-min": "'x' is not a whole number",
        "masquerade-all": "'x' is not true or false",
        "iptables-sync-period": "'x' is not a duration such as 30s",
    }
    for flag, why in ignored.items():
        with pytest.raises(InventoryError, match=re.escape(why)):
            read(with_flag(tmp_path, "1.37.1", "kube-proxy", flag))
    assert read(with_flag(tmp_path, "1.37.1", "kube-proxy", "v", "4")).warnings == ()


def test_every_flag_of_kube_proxy_has_a_field_is_reserved_or_is_for_a_mode_without_it():
    for version in ("1.36", "1.37"):
        left = known_flags(version)["kube-proxy"] - proxy_flags.FLAGS - proxy_flags.LOGGING
        assert {f for f in left - RESERVED["kube-proxy"].keys() if "ipvs" not in f} <= {
            "boot-id-file",
            "machine-id-file",
        }


@pytest.mark.parametrize(
    ("component", "flag"),
    [(c, f) for c in RESERVED for f in ("help", "version")] + [("etcd", "config-file")],
)
def test_a_flag_that_ends_the_program_or_hides_the_others_is_refused(tmp_path, component, flag):
    with pytest.raises(InventoryError, match="clusterctl sets this flag"):
        read(with_flag(tmp_path, "1.37.1", component, flag))


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ("6000-7000", "6443"),
        ("10000+300", "10250"),
        ("x", "not a range"),
        ("900-800", "not a range"),
    ],
)
def test_a_range_of_node_ports_with_a_port_of_the_cluster_is_refused(tmp_path, ports, said):
    with pytest.raises(InventoryError, match=said):
        read(with_flag(tmp_path, "1.37.1", "kube-apiserver", "service-node-port-range", ports))


def test_a_range_of_node_ports_without_a_port_of_the_cluster_is_fine(tmp_path):
    read(with_flag(tmp_path, "1.37.1", "kube-apiserver", "service-node-port-range", "20000-32767"))


def with_networks(tmp_path, networks, pods=None):
    path = tmp_path / "inventory.py"
    extra = {"kubelet": {"max-pods": pods}} if pods else {}
    path.write_text(
        f'cluster = {{"name": "demo", "networks": {networks}, "extra_args": {extra}}}\n'
        'masters = [("m1", {"ssh_hostname": "192.0.2.1"})]\n'
    )
    return path


def test_pods_and_addresses_of_a_node_must_fit(tmp_path):
    (warning,) = read(with_networks(tmp_path, {"node_prefix": 27})).warnings
    assert "a node runs at most 29 pods, not 110" in warning.what
    assert '"max-pods": "29"' in warning.hint
    assert read(with_networks(tmp_path, {"node_prefix": 27}, "29")).warnings == ()
    assert read(with_networks(tmp_path, {"node_prefix": 25})).warnings == ()
    with pytest.raises(InventoryError, match="gives a node 29 addresses for 30 pods"):
        read(with_networks(tmp_path, {"node_prefix": 27}, "30"))
    with pytest.raises(InventoryError, match="gives a node 253 addresses for 300 pods"):
        read(with_networks(tmp_path, {}, "300"))
    with pytest.raises(InventoryError, match="'many' is not a number of pods"):
        read(with_networks(tmp_path, {}, "many"))
    read(with_networks(tmp_path, {"node_prefix": 23}, "300"))
