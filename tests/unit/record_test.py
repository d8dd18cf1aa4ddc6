"""A component's plan -> its change, and what the machine's record will say."""

from dataclasses import replace

import pytest

from provision.apply.make_change import component_change
from provision.desired.catalog import desired
from provision.desired.model import HostFile
from provision.pki.leaf import issue
from tests.world import DEFAULT, LAB, NOW, converged, disks, look, plan_of, trust


def change_of(name, component, observed, one_time=()):
    plan = plan_of(DEFAULT, observed).machines[name].components[component]
    issued = tuple(issue(leaf.leaf, trust(), NOW) for leaf in plan.leaves)
    return component_change(plan, issued, observed[name], DEFAULT, trust(), one_time)


def lines(text):
    return [tuple(line.split("\t")) for line in text.splitlines()]


def of_kind(text, kind):
    return [fields for first, *fields in lines(text) if first == kind]


@pytest.fixture
def first():
    return look(DEFAULT, disks(DEFAULT))


@pytest.mark.parametrize("component", ["host", "containerd", "etcd", "kube-apiserver", "kubelet"])
def test_the_record_names_all_that_the_component_puts_there(first, component):
    state = desired(DEFAULT, DEFAULT.machine("m1"), trust(), LAB)[component]
    record = change_of("m1", component, first).record

    assert of_kind(record, "user") == [[user] for user in state.users]
    assert of_kind(record, "dir") == [[d.path] for d in state.directories]
    assert of_kind(record, "file") == [[f.path] for f in state.files]
    assert of_kind(record, "cert") == [[leaf.cert_path] for leaf in state.leaves]
    assert [path for path, _ in of_kind(record, "key")] == [x.key_path for x in state.leaves]
    assert of_kind(record, "leftover") == [[path] for path in state.leftovers]
    assert [name for name, _ in of_kind(record, "unit")] == [u.name for u in state.units]


def test_only_the_host_says_whose_machine_it_is(first):
    host = change_of("m1", "host", first)

    assert of_kind(host.record, "cluster") == [["demo", trust().fingerprint]]
    assert of_kind(host.record_before, "cluster") == [["demo", trust().fingerprint]]
    assert of_kind(change_of("m1", "etcd", first).record, "cluster") == []


def test_before_units_ran_the_record_names_them_without_a_digest(first):
    change = change_of("m1", "etcd", first)

    assert of_kind(change.record_before, "unit") == [["etcd.service", ""]]
    assert lines(change.record_before)[:-1] == lines(change.record)[:-1]


def test_until_the_change_is_done_the_record_keeps_the_old_digest():
    _, seen = converged()
    path = "/etc/systemd/system/etcd.service"
    files = {**seen["m1"].files, path: replace(seen["m1"].files[path], sha256="0" * 64)}
    units = dict(seen["m1"].units)
    units["etcd.service"] = replace(units["etcd.service"], digest="old")
    observed = {**seen, "m1": replace(seen["m1"], files=files, units=units)}

    change = change_of("m1", "etcd", observed)

    assert of_kind(change.record_before, "unit") == [["etcd.service", "old"]]
    assert of_kind(change.record, "unit") == [
        ["etcd.service", seen["m1"].units["etcd.service"].digest]
    ]
    assert change.restart == ("etcd.service",)
    assert [file.path for file in change.files] == [path]


def test_keys_that_stay_keep_their_hash_and_new_ones_have_the_new():
    _, seen = converged()
    path = "/etc/etcd/pki/peer.key"
    files = {**seen["m1"].files, path: replace(seen["m1"].files[path], mode=0o644)}
    change = change_of("m1", "etcd", {**seen, "m1": replace(seen["m1"], files=files)})
    keys = dict(of_kind(change.record, "key"))

    assert [issued.leaf.key_path for issued in change.issued] == [path]
    assert keys[path] != seen["m1"].files[path].sha256
    assert keys["/etc/etcd/pki/server.key"] == seen["m1"].files["/etc/etcd/pki/server.key"].sha256


def test_one_time_files_are_sent_and_not_recorded(first):
    token = HostFile("/etc/kubernetes/bootstrap-kubelet.conf", b"token", secret=True)
    change = change_of("w1", "kubelet", first, one_time=(token,))

    assert token in change.files
    assert [token.path] not in of_kind(change.record, "file")
    # Teardown removes it should the join never have ended.
    assert [token.path] in of_kind(change.record, "leftover")


def test_kernel_settings_are_loaded_only_when_their_files_change():
    _, seen = converged()
    path = "/etc/sysctl.d/90-clusterctl.conf"
    files = {p: f for p, f in seen["w1"].files.items() if p != path}

    change = change_of("w1", "host", {**seen, "w1": replace(seen["w1"], files=files)})

    assert change.sysctls
    assert change.modules
    assert [file.path for file in change.files] == [path]
    units = {**seen["w1"].units}
    units["kubelet.service"] = replace(units["kubelet.service"], active="failed")
    started = change_of("w1", "kubelet", {**seen, "w1": replace(seen["w1"], units=units)})
    assert (started.start, started.files, started.sysctls) == (("kubelet.service",), (), ())


def test_no_record_has_a_key(first):
    for name, plan in plan_of(DEFAULT, first).machines.items():
        for component in plan.components:
            change = change_of(name, component, first)
            assert "PRIVATE" not in change.record + change.record_before + repr(change)
