"""What is planned for machines, from what they report."""

import copy
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.artifacts.images import IMAGES
from provision.commands.converge import check
from provision.desired.catalog import COMPONENTS, desired
from provision.desired.components.etcd import peer_url
from provision.desired.digests import reads
from provision.model import paths
from provision.model.cluster import Role
from provision.model.errors import RefusedError
from provision.model.observed import ApiView, EtcdMember, EtcdView, Observed, ObservedFile
from provision.model.settings.components import Addons
from provision.model.settings.network import Networks
from provision.pki import table
from provision.pki.leaf import issue
from provision.pki.trust import Trust
from provision.plan.make import make_plan
from provision.plan.model import Renewal
from provision.plan.refuse import refuse_changed_networks, refuse_moved_members
from tests.world import (
    LAB,
    NOW,
    Disk,
    all_manifests,
    artifacts,
    built,
    changes,
    cluster,
    converge,
    converged,
    disks,
    healthy_api,
    healthy_etcd,
    look,
    machine,
    master,
    plan_of,
    trust,
    worker,
)

CLUSTERS = {
    "3 masters, 2 workers, a virtual address": cluster(),
    "one master that runs pods": cluster(master("m1"), api={}, masters_schedulable=True),
    "separate etcd": cluster(
        *(machine(name, Role.MASTER) for name in ("m1", "m2")),
        *(machine(name, Role.ETCD) for name in ("e1", "e2", "e3")),
        worker("w1", labels={"zone": "a"}),
    ),
    "custom network, no kube-proxy": cluster(networks=Networks(plugin="custom", proxy_mode="none")),
    "iptables": cluster(networks=Networks(proxy_mode="iptables")),
}
OF = CLUSTERS["3 masters, 2 workers, a virtual address"]
SMALL = cluster(master("m1"), worker("w1"))  # plans are quicker


def states(name, of=SMALL):
    return desired(of, of.machine(name), trust(), LAB)


def everything(attribute):
    """(machine, thing), of one master and one worker."""
    return [
        pytest.param(name, thing, id=f"{name}:{getattr(thing, 'path', '') or thing.cert_path}")
        for name in ("m1", "w1")
        for state in states(name).values()
        for thing in getattr(state, attribute)
    ]


def readers(name, path):
    return {
        unit.name
        for state in states(name).values()
        for unit in state.units
        if unit.running and path in {*reads(unit, state), *unit.rereads}
    }


def replanned(name, now=NOW, **values):
    """The plan when the converged cluster's machine reports something else."""
    of, seen = converged(SMALL)
    return plan_of(of, {**seen, name: replace(seen[name], **values)}, now)


def only_machine(plan, name):
    assert not plan.apply
    assert not plan.delete
    assert [other for other, p in plan.machines.items() if not p.empty] == [name]
    return plan.machines[name]


def without(mapping, key):
    return {k: v for k, v in mapping.items() if k != key}


def written(plan):
    return [change.file.path for c in plan.components.values() for change in c.files]


def units(plan, *actions):
    return {
        unit.name
        for c in plan.components.values()
        for unit in c.units
        if not actions or unit.action in actions
    }


def leaves(plan):
    return [change.leaf.cert_path for c in plan.components.values() for change in c.leaves]


@pytest.mark.parametrize("of", CLUSTERS.values(), ids=CLUSTERS.keys())
def test_after_a_plan_was_carried_out_the_next_one_is_empty(of):
    machines = disks(of)

    first = converge(of, machines)
    second = plan_of(of, look(of, machines))

    assert not first.empty
    assert not first.running
    assert second.empty
    assert second.running


def test_on_empty_machines_everything_desired_is_planned_and_nothing_else():
    machines = disks(OF)

    plan = plan_of(OF, look(OF, machines))

    for one in OF.machines:
        planned, wanted = plan.machines[one.name], states(one.name, OF)
        assert list(planned.components) == [name for name in wanted if name in planned.components]
        assert set(wanted) - set(planned.components) == set()
        for name, state in wanted.items():
            component = planned.components[name]
            assert component.directories == state.directories
            assert tuple(change.file for change in component.files) == state.files
            assert {change.reason for change in component.files} <= {"new"}
            assert tuple(change.leaf for change in component.leaves) == state.leaves
            assert [u.name for u in component.units] == [u.name for u in state.units]
            assert {u.action for u in component.units} <= {"start", "enable"}
        assert set(planned.packages) == {p for s in wanted.values() for p in s.packages}
        assert set(planned.binaries) == {b for s in wanted.values() for b in s.binaries}
        assert planned.images is one.is_master
        assert planned.form_etcd is one.has_etcd
        assert planned.register
    assert tuple(change.manifest for change in plan.apply) == all_manifests(OF)


def test_components_are_planned_in_the_order_of_the_catalogue():
    order = [c.name for c in COMPONENTS]

    for plan in plan_of(OF, look(OF, disks(OF))).machines.values():
        names = list(plan.components)
        assert names == sorted(names, key=order.index)


@pytest.mark.parametrize(("name", "file"), everything("files"))
def test_a_changed_file_is_written_again_and_only_its_readers_are_restarted(name, file):
    of, seen = converged(SMALL)
    there = replace(seen[name].files[file.path], sha256="0" * 64)

    plan = only_machine(replanned(name, files={**seen[name].files, file.path: there}), name)

    assert written(plan) == [file.path]
    assert units(plan, "restart", "reload") == readers(name, file.path)
    assert units(plan) == readers(name, file.path)
    assert not leaves(plan)
    assert not any((plan.packages, plan.binaries, plan.images, plan.form_etcd, plan.register))
    (change,) = (c for component in plan.components.values() for c in component.files)
    assert change.reason == "content differs"


@pytest.mark.parametrize(("name", "file"), everything("files"))
def test_a_missing_file_is_new(name, file):
    _, seen = converged(SMALL)

    plan = only_machine(replanned(name, files=without(seen[name].files, file.path)), name)

    assert written(plan) == [file.path]
    assert {c.reason for component in plan.components.values() for c in component.files} == {"new"}


def test_wrong_access_to_a_file_is_named():
    _, seen = converged(SMALL)
    path = f"{paths.KUBERNETES}/encryption.yaml"
    wide = replace(seen["m1"].files[path], mode=0o644, group="staff")

    plan = only_machine(replanned("m1", files={**seen["m1"].files, path: wide}), "m1")

    (change,) = plan.components["kube-apiserver"].files
    assert change.reason == "is 0644 root:staff, not 0600 root:root"


def test_a_link_in_a_files_place_is_replaced():
    _, seen = converged(SMALL)
    path = f"{paths.KUBERNETES}/scheduler.conf"
    link = replace(seen["m1"].files[path], kind="link", sha256="")

    assert written(only_machine(replanned("m1", files={**seen["m1"].files, path: link}), "m1")) == [
        path
    ]


@pytest.mark.parametrize(("name", "directory"), everything("directories"))
def test_a_directory_with_another_mode_is_set_right_and_nothing_restarts(name, directory):
    _, seen = converged(SMALL)
    wide = replace(seen[name].files[directory.path], mode=0o777)

    plan = only_machine(replanned(name, files={**seen[name].files, directory.path: wide}), name)

    assert {d.path for c in plan.components.values() for d in c.directories} == {directory.path}
    assert not written(plan)
    assert not units(plan)


@pytest.mark.parametrize(("name", "binary"), everything("binaries"))
@pytest.mark.parametrize("what", ["missing", "another pin", "not intact"])
def test_a_binary_that_is_not_the_pinned_one_is_delivered_and_its_readers_restart(
    name, binary, what
):
    _, seen = converged(SMALL)
    binaries = dict(seen[name].binaries)
    there = binaries.pop(binary.path)
    if what == "another pin":
        binaries[binary.path] = replace(there, pin="0" * 64)
    elif what == "not intact":
        binaries[binary.path] = replace(there, intact=False)

    plan = only_machine(replanned(name, binaries=binaries), name)

    assert plan.binaries == (binary,)
    assert units(plan, "restart", "reload") == readers(name, binary.path)
    assert not written(plan)


@pytest.mark.parametrize("name", ["m1", "w1"])
def test_a_unit_without_a_digest_is_restarted(name):
    _, seen = converged(SMALL)
    for state in states(name).values():
        for unit in state.units:
            if not unit.running:
                continue
            lost = replace(seen[name].units[unit.name], digest="")

            plan = only_machine(replanned(name, units={**seen[name].units, unit.name: lost}), name)

            (change,) = plan.components[state.name].units
            assert (change.name, change.action) == (
                unit.name,
                "reload" if unit.reload else "restart",
            )
            assert change.reason == "it runs with older files"
            assert not written(plan)


@pytest.mark.parametrize(
    ("values", "action"),
    [
        ({"active": "inactive"}, "start"),
        ({"active": "failed"}, "start"),
        ({"active": "activating"}, "start"),
        ({"enabled": "disabled"}, "enable"),
        ({"enabled": ""}, "enable"),
        ({"active": "inactive", "enabled": "disabled"}, "start"),
    ],
)
def test_a_unit_is_started_when_it_does_not_run_and_enabled_when_it_is_not(values, action):
    _, seen = converged(SMALL)
    there = replace(seen["w1"].units["kubelet.service"], **values)

    plan = only_machine(replanned("w1", units={**seen["w1"].units, "kubelet.service": there}), "w1")

    (change,) = plan.components["kubelet"].units
    assert (change.name, change.action) == ("kubelet.service", action)


def test_a_unit_whose_table_is_gone_is_restarted_since_systemd_would_not_start_it():
    _, seen = converged(SMALL)
    name = "clusterctl-masquerade.service"
    lost = replace(seen["w1"].units[name], lacks="ip clusterctl")

    plan = only_machine(replanned("w1", units={**seen["w1"].units, name: lost}), "w1")
    stopped = replace(lost, active="inactive")
    start = only_machine(replanned("w1", units={**seen["w1"].units, name: stopped}), "w1")

    (change,) = plan.components["pod-network"].units
    assert (change.name, change.action) == (name, "restart")
    assert change.reason == "nftables has no table ip clusterctl"
    assert units(start, "start") == {name}


@pytest.mark.parametrize("of", CLUSTERS.values(), ids=CLUSTERS.keys())
def test_a_run_killed_before_the_units_is_finished_by_the_next(of):
    machines = disks(of)
    converge(of, machines)
    changed = of.model_copy(
        update={"extra_args": {"kubelet": {"v": "4"}, "etcd": {"log-level": "warn"}}}
    )
    observed = look(changed, machines)
    plan = plan_of(changed, observed)
    wanted = {name: units(p, "restart") for name, p in plan.machines.items()}
    for name, todo in changes(changed, plan, observed).items():
        for change in todo:
            machines[name].carry_out(change, killed=True)

    again = plan_of(changed, look(changed, machines))

    assert any(wanted.values())
    assert {name: units(p, "restart") for name, p in again.machines.items()} == wanted
    assert not any(written(p) for p in again.machines.values())
    converge(changed, machines)
    assert plan_of(changed, look(changed, machines)).empty


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_drifts_on_one_machine_is_set_right_there_in_one_run(data):
    of = SMALL
    machines = copy.deepcopy(built(of))
    disk = machines[data.draw(st.sampled_from(sorted(machines)))]
    for path in data.draw(st.sets(st.sampled_from(sorted(disk.there)), max_size=8)):
        what = data.draw(st.sampled_from(["gone", "mode", "owner", "content"]))
        there = disk.there[path]
        if what == "gone":
            disk.there.pop(path)
            disk.pems.pop(path, None)
        elif what == "mode":
            disk.there[path] = replace(there, mode=there.mode ^ 0o007)
        elif what == "owner":
            disk.there[path] = replace(there, owner="nobody")
        elif there.kind == "file":
            disk.there[path] = replace(there, sha256="0" * 64)
            if path in disk.pems:
                disk.pems[path] = "not a certificate"
    for unit in data.draw(st.sets(st.sampled_from(sorted(disk.units)), max_size=3)):
        disk.units[unit] = replace(disk.units[unit], active="failed", enabled="disabled")

    plan = converge(of, machines)

    assert {name for name, p in plan.machines.items() if not p.empty} <= {disk.machine.name}
    assert plan_of(of, look(of, machines)).empty


# The version of Kubernetes


def versions(wanted, *running):
    """The plan of a cluster whose masters' apiservers run these; empty: one does not answer."""
    of, seen = converged()
    apis = zip(of.masters, running, strict=False)
    seen |= {
        m.name: replace(seen[m.name], api=replace(healthy_api(of), version=version))
        for m, version in apis
    }
    return plan_of(of.model_copy(update={"kubernetes": wanted}), seen)


@pytest.mark.parametrize(
    ("wanted", "running"),
    [
        ("1.36.3", ("1.35.4", "1.35.4", "1.35.4")),
        ("1.36.3", ("1.36.3", "1.35.4", "1.35.4")),  # in the middle of an upgrade
        ("1.36.3", ("1.36.3", "1.36.3", "1.34.0")),  # one was away for long
        ("1.36.0", ("1.36.3", "1.36.3", "1.36.3")),
        ("1.36.3", ("1.36.0-rc.1+k", "1.36.0", "")),
        ("1.30.0", ("", "", "")),
    ],
)
def test_kubernetes_goes_on_by_one_minor_version_or_to_another_patch(wanted, running):
    assert versions(wanted, *running)


@pytest.mark.parametrize(
    ("wanted", "running", "hint"),
    [
        ("1.35.4", ("1.36.3", "1.36.3", "1.36.3"), '"kubernetes": "1.36.3"; to go back'),
        ("1.35.4", ("1.35.4", "1.36.3", ""), '"kubernetes": "1.36.3"; to go back'),
        ("1.36.3", ("1.34.9", "1.34.9", "1.34.9"), "a version 1.35 as"),
        ("1.37.0", ("1.36.3", "1.35.4", "1.35.4"), "a version 1.36 as"),
        ("2.0.0", ("1.36.3", "1.36.3", "1.36.3"), "a version 1.37 as"),
    ],
)
def test_a_version_too_far_from_what_runs_is_refused_with_what_to_write(wanted, running, hint):
    with pytest.raises(RefusedError, match=r"demo runs Kubernetes 1\.") as refused:
        versions(wanted, *running)

    assert hint in refused.value.hint


# Certificates


MADE_WITH = {
    "cluster-cidr": "10.244.0.0/16",
    "node-cidr-mask-size": "24",
    "service-cluster-ip-range": "10.96.0.0/16",
    "domain": "cluster.local",
}


@pytest.mark.parametrize(
    ("changed", "said", "hint"),
    [
        ({"pods": IPv4Network("10.200.0.0/16")}, "pods from 10.244.0.0/16 to 10.200.0.0/16",
         '{"pods": "10.244.0.0/16"}'),
        ({"pods": IPv4Network("10.244.0.0/15")}, "pods from 10.244.0.0/16 to 10.244.0.0/15",
         '{"pods": "10.244.0.0/16"}'),
        ({"services": IPv4Network("10.97.0.0/16")}, "services from 10.96.0.0/16 to 10.97.0.0/16",
         '{"services": "10.96.0.0/16"}'),
        ({"node_prefix": 25, "domain": "corp"},
         "node_prefix from 24 to 25, domain from cluster.local to corp",
         '{"node_prefix": 24, "domain": "cluster.local"}'),
    ],
)  # fmt: skip
def test_networks_of_a_cluster_that_exists_cannot_change(changed, said, hint):
    of, observed = converged()
    seen = {name: replace(view, for_life=MADE_WITH) for name, view in observed.items()}
    plan_of(of, seen)
    wanted = of.model_copy(update={"networks": of.networks.model_copy(update=changed)})

    with pytest.raises(RefusedError) as refused:
        plan_of(wanted, seen)

    assert said in str(refused.value)
    assert hint in refused.value.hint
    assert refused.value.exit_code == 5


@pytest.mark.parametrize("was", ["https://kubernetes.default.svc.cluster.local", "https://old"])
def test_the_issuer_of_a_cluster_that_exists_cannot_change(was):
    of, observed = converged()
    made = MADE_WITH | {"service-account-issuer": was}
    seen = {name: replace(view, for_life=made) for name, view in observed.items()}
    same = of.model_copy(update={"extra_args": {"kube-apiserver": {"service-account-issuer": was}}})
    other = of.model_copy(
        update={"extra_args": {"kube-apiserver": {"service-account-issuer": "https://new"}}}
    )

    refuse_changed_networks(same, seen)
    with pytest.raises(RefusedError) as refused:
        refuse_changed_networks(other, seen)

    assert f"from {was} to https://new" in str(refused.value)
    assert f'"service-account-issuer": "{was}"' in refused.value.hint
    assert refused.value.exit_code == 5


def test_a_new_cluster_may_still_change_its_networks_and_a_begun_change_is_finished():
    of, observed = converged()
    wanted = of.model_copy(update={"networks": of.networks.model_copy(update={"domain": "corp"})})
    made = {name: replace(view, for_life=MADE_WITH) for name, view in observed.items()}
    new = {name: replace(view, etcd_formed=False) for name, view in made.items()}
    begun = made | {"w1": replace(made["w1"], for_life={"domain": "corp"})}

    refuse_changed_networks(wanted, new)
    refuse_changed_networks(wanted, begun)


def moved(of, name, address):
    machines = [
        m.model_copy(update={"address": IPv4Address(address)}) if m.name == name else m
        for m in of.machines
    ]
    return of.model_copy(update={"machines": tuple(machines)})


@pytest.mark.parametrize("healthy", [True, False])
@pytest.mark.parametrize("off", [(), ("m2",)])
def test_a_member_with_another_address_is_refused(healthy, off):
    of, observed = converged()
    listed = tuple(EtcdMember(m.name, m.name, (peer_url(m),)) for m in of.etcd_members)
    view = EtcdView(healthy=healthy, id="m1", members=listed)
    seen = {**observed, "m1": replace(observed["m1"], etcd=view)}
    seen |= {name: Observed(name, error="does not answer", off=True) for name in off}
    refuse_moved_members(of, seen)

    with pytest.raises(RefusedError) as refused:
        check(SimpleNamespace(cluster=moved(of, "m2", "10.77.0.99")), seen)

    was = of.machine("m2").address
    assert f"m2 is the member at {was}, and the inventory says 10.77.0.99" in str(refused.value)
    assert f"clusterctl node replace {of.inventory} m2" in refused.value.hint
    assert refused.value.exit_code == 5


def test_a_machine_that_is_not_on_etcds_list_may_have_any_address():
    of, observed = converged()
    others = [m for m in of.etcd_members if m.name != "m2"]
    listed = tuple(EtcdMember(m.name, m.name, (peer_url(m),)) for m in others)
    learner = EtcdMember("new", "", ("https://10.77.0.99:2380",), learner=True)
    view = EtcdView(healthy=True, id="m1", members=(*listed, learner))
    seen = {**observed, "m1": replace(observed["m1"], etcd=view)}

    refuse_moved_members(moved(of, "m2", "10.77.0.99"), seen)
    refuse_moved_members(moved(of, "w1", "10.77.0.98"), seen)


@pytest.mark.parametrize(("name", "leaf"), everything("leaves"))
def test_a_key_that_others_may_have_read_is_issued_anew(name, leaf):
    _, seen = converged(SMALL)
    wide = replace(seen[name].files[leaf.key_path], mode=0o640)

    plan = only_machine(replanned(name, files={**seen[name].files, leaf.key_path: wide}), name)

    assert leaves(plan) == [leaf.cert_path]
    (change,) = (c for component in plan.components.values() for c in component.leaves)
    assert "0640" in str(change.reason)
    assert "others may have read it" in str(change.reason)
    assert units(plan, "restart", "reload") == readers(name, leaf.cert_path)


@pytest.mark.parametrize(("name", "leaf"), everything("leaves"))
def test_a_missing_or_foreign_key_is_issued_again(name, leaf):
    _, seen = converged(SMALL)
    files = seen[name].files
    foreign = replace(files[leaf.key_path], sha256="")

    missing = only_machine(replanned(name, files=without(files, leaf.key_path)), name)
    other = only_machine(replanned(name, files={**files, leaf.key_path: foreign}), name)

    assert leaves(missing) == leaves(other) == [leaf.cert_path]


def test_certificates_are_renewed_in_the_last_third_of_their_life():
    before = replanned("m1", NOW + timedelta(days=240))
    after = replanned("m1", NOW + timedelta(days=245))

    assert before.empty
    for name, plan in after.machines.items():
        wanted = [leaf.cert_path for state in states(name).values() for leaf in state.leaves]
        assert leaves(plan) == wanted
        assert not written(plan)


def test_programs_that_read_certificates_anew_are_not_restarted_for_them():
    plan = replanned("m1", NOW + timedelta(days=300)).machines["m1"]

    assert units(plan).isdisjoint({"etcd.service", "kube-apiserver.service", "containerd.service"})
    assert "clusterctl-registry.service" in units(plan, "restart")
    assert "clusterctl-haproxy.service" in units(plan, "reload")


def test_they_are_restarted_when_the_old_certificate_will_not_do():
    plan = replanned("m1", NOW + timedelta(days=366)).machines["m1"]

    restarted = units(plan, "restart")
    assert {f"kube-{n}.service" for n in ("apiserver", "controller-manager", "scheduler")} <= (
        restarted
    )
    assert restarted.isdisjoint({"etcd.service", "containerd.service"})


def renewed(*names, before=NOW + timedelta(days=1)):
    of, seen = converged(SMALL)
    renewal = Renewal(frozenset(names), before)
    return make_plan(of, trust(), seen, artifacts(of), before, renewal)


def test_requested_certificates_are_issued_again_everywhere_and_their_units_restarted():
    plan = renewed("kubelet-serving", "scheduler")

    assert leaves(plan.machines["w1"]) == ["/var/lib/kubelet/pki/kubelet.crt"]
    assert leaves(plan.machines["m1"]) == [
        f"{paths.PKI}/scheduler.crt",
        "/var/lib/kubelet/pki/kubelet.crt",
    ]
    assert units(plan.machines["m1"]) == {"kube-scheduler.service", "kubelet.service"}
    assert not any(p.register for p in plan.machines.values())


def test_all_are_issued_anew_when_none_is_named_and_kubelets_ask_for_theirs():
    plan = renewed()

    for name, machine_plan in plan.machines.items():
        wanted = [leaf.cert_path for state in states(name).values() for leaf in state.leaves]
        assert leaves(machine_plan) == wanted
        assert machine_plan.register
        (kubelet,) = machine_plan.components["kubelet"].units
        assert kubelet.action == "restart"


def test_a_renewal_that_was_stopped_does_not_begin_anew():
    assert renewed(before=NOW).empty


@pytest.mark.parametrize(("days", "asks"), [(300, False), (330, True), (366, True)])
def test_a_kubelet_renews_its_own_and_asks_with_a_token_only_when_it_has_not(days, asks):
    plan = replanned("w1", NOW + timedelta(days=days)).machines["w1"]

    assert plan.register is asks


def test_a_kubelet_whose_certificate_is_anothers_asks_for_one():
    of, seen = converged(SMALL)
    stranger = Trust.create("demo", NOW)
    pem = issue(table.kubelet_client(of, of.machine("w1")), stranger, NOW).certificate.decode()
    certificates = {**seen["w1"].certificates, table.KUBELET_CLIENT: pem}

    plan = only_machine(replanned("w1", certificates=certificates), "w1")

    assert plan.register
    assert units(plan, "restart") == {"kubelet.service", "kube-proxy.service"}
    (change,) = plan.components["kubelet"].units
    assert "signed by another authority" in change.reason


@pytest.mark.parametrize("healthy", [True, False])
def test_without_a_quorum_there_is_nothing_to_keep_working(healthy):
    of, seen = converged()
    view = replace(healthy_etcd(of), healthy=healthy)
    seen = {name: replace(o, etcd=view if name == "m2" else None) for name, o in seen.items()}

    assert plan_of(of, seen).running is healthy


def test_the_apiservers_certificate_follows_the_virtual_address():
    of, seen = converged()
    moved = cluster(api={"vip": "10.77.0.101"})

    plan = plan_of(moved, seen)

    assert [name for name in plan.machines if leaves(plan.machines[name])] == ["m1", "m2", "m3"]
    for name in ("m1", "m2", "m3"):
        assert leaves(plan.machines[name]) == [f"{paths.PKI}/apiserver.crt"]


# etcd


def members(**states_of):
    """The cluster's machines; NAME="empty", "data" or "formed" for each member."""
    seen = look(OF, disks(OF))
    for name, state in states_of.items():
        seen[name] = replace(seen[name], etcd_data=state != "empty", etcd_formed=state == "formed")
    return seen


def forming(plan):
    return {name for name, p in plan.machines.items() if p.form_etcd}


@pytest.mark.parametrize("empty", ["m1", "m2", "m3"])
def test_a_member_without_data_in_a_formed_cluster_is_refused(empty):
    others = dict.fromkeys({"m1", "m2", "m3"} - {empty}, "formed")

    with pytest.raises(RefusedError) as refused:
        plan_of(OF, members(**others, **{empty: "empty"}))

    assert f"but {empty} is empty" in refused.value.message
    assert refused.value.hint
    assert refused.value.exit_code == 5


def test_even_one_formed_member_is_a_cluster():
    with pytest.raises(RefusedError):
        plan_of(OF, members(m1="formed", m2="data", m3="empty"))


@pytest.mark.parametrize(
    "seen",
    [
        {"m1": "data", "m2": "empty", "m3": "empty"},
        {"m1": "empty", "m2": "data", "m3": "data"},
        {"m1": "data", "m2": "data", "m3": "data"},
    ],
)
def test_an_interrupted_formation_goes_on_for_all_members(seen):
    plan = plan_of(OF, members(**seen))

    assert forming(plan) == {"m1", "m2", "m3"}
    assert not plan.running


def with_members(of, seen, *, lost=(), unlisted=()):
    """As `seen`, each healthy member with the cluster's own list of members."""
    url = "https://{}:2380".format
    listed = tuple(
        EtcdMember(m.name, m.name, (url(m.address),))
        for m in of.etcd_members
        if m.name not in unlisted
    )
    return {
        name: replace(view, etcd=EtcdView(healthy=True, id=name, members=listed))
        if view.etcd_formed and name not in lost and name not in unlisted
        else view
        for name, view in seen.items()
    }


def off(name):
    return Observed(name, error="did not answer", off=True)


def test_a_wiped_member_is_named_with_what_to_type():
    seen = with_members(OF, members(m1="formed", m2="empty", m3="formed"), lost=["m2"])

    with pytest.raises(RefusedError) as refused:
        plan_of(OF, seen)

    assert "m2 is a member of its etcd, and its data is gone" in refused.value.message
    assert "node replace /inventories/demo.py m2" in refused.value.hint


def test_while_a_restore_is_not_finished_nothing_is_started():
    seen = members(m1="formed", m2="formed", m3="formed")
    seen["m2"] = replace(seen["m2"], restoring="sha256 1000000000")

    with pytest.raises(RefusedError, match=r"did not finish \(on m2\)") as refused:
        plan_of(OF, seen)

    assert "etcd restore /inventories/demo.py" in refused.value.hint


def test_a_worker_is_planned_beside_one_master_that_is_ready_wherever_etcd_is():
    apart = cluster(machine("m1", Role.MASTER), machine("e1", Role.ETCD), worker("w1"))
    _, seen = converged(apart)
    new = Disk(apart.machine("w1")).observed()

    plan = plan_of(apart, {"m1": seen["m1"], "w1": new})

    assert plan.running
    assert plan.machines["w1"].register
    with pytest.raises(RefusedError, match="e1 cannot be reached"):
        plan_of(apart, {"m1": replace(seen["m1"], api=None), "w1": new})


def test_an_empty_machine_that_the_cluster_does_not_know_joins():
    seen = with_members(OF, members(m1="formed", m2="formed", m3="empty"), unlisted=["m3"])

    plan = plan_of(OF, seen)

    assert [name for name, p in plan.machines.items() if p.join_etcd] == ["m3"]
    assert forming(plan) == set()


def test_no_member_joins_while_another_is_unreachable():
    five = cluster(*(master(f"m{i}") for i in range(1, 5)))
    seen = look(five, built(five))
    seen["m4"] = replace(seen["m4"], etcd_data=False, etcd_formed=False)
    seen = with_members(five, {**seen, "m2": off("m2")}, unlisted=["m4"])

    with pytest.raises(RefusedError) as refused:
        plan_of(five, seen)

    assert "m4 cannot join" in refused.value.message
    assert "node replace /inventories/demo.py m2" in refused.value.hint


def test_a_new_cluster_needs_the_answer_of_every_member():
    seen = {**members(), "m3": off("m3")}

    with pytest.raises(RefusedError, match="m3 cannot be reached"):
        plan_of(OF, seen)


def test_a_machine_that_is_away_is_left_out_and_the_others_are_looked_after():
    _, seen = converged(OF)
    seen = with_members(OF, {**seen, "m2": off("m2")})
    path = f"{paths.UNITS}/kube-scheduler.service"
    files = {p: f for p, f in seen["m1"].files.items() if p != path}
    seen["m1"] = replace(seen["m1"], files=files)

    plan = plan_of(OF, seen)

    assert dict(plan.absent) == {"m2": "did not answer"}
    assert "m2" not in plan.machines
    assert list(plan.machines["m1"].components) == ["kube-scheduler"]
    assert plan.machines["m3"].empty


def test_a_member_on_which_the_quorum_depends_is_not_restarted():
    _, seen = converged(OF)
    seen = with_members(OF, {**seen, "m2": off("m2")})
    path = f"{paths.UNITS}/etcd.service"
    files = {p: f for p, f in seen["m1"].files.items() if p != path}
    seen["m1"] = replace(seen["m1"], files=files)

    with pytest.raises(RefusedError) as refused:
        plan_of(OF, seen)

    assert "etcd would have no quorum while m1 restarts" in refused.value.message


def test_a_member_whose_marker_is_missing_does_not_form_a_new_cluster():
    plan = plan_of(OF, members(m1="formed", m2="formed", m3="data"))

    assert forming(plan) == set()
    assert plan.running


# Nodes and manifests


def with_api(seen, **values):
    of, _ = converged()
    api = replace(healthy_api(of), **values)
    return {name: replace(o, api=api if o.api else None) for name, o in seen.items()}


def test_a_label_that_is_missing_or_differs_is_set():
    of, seen = converged()
    nodes = [replace(n, labels={}) if n.name == "w1" else n for n in healthy_api(of).nodes]

    plan = only_machine(plan_of(of, with_api(seen, nodes=tuple(nodes))), "w1")

    assert plan.node.labels == {"node-role.kubernetes.io/worker": ""}


def test_a_kubelet_whose_node_was_deleted_is_restarted():
    of, seen = converged()
    nodes = tuple(n for n in healthy_api(of).nodes if n.name != "w2")

    plan = only_machine(plan_of(of, with_api(seen, nodes=nodes)), "w2")

    assert units(plan, "restart") == {"kubelet.service"}
    assert plan.components["kubelet"].units[0].reason == "its Node is gone"
    assert plan.node


def test_a_node_without_a_client_certificate_registers():
    plan = only_machine(replanned("w1", registered=False), "w1")

    assert plan.register


def test_manifests_that_changed_are_applied_and_those_not_wanted_deleted():
    of, seen = converged()
    applied = {**healthy_api(of).applied, "coredns": "0" * 64, "old": "1" * 64}

    plan = plan_of(of, with_api(seen, applied=applied))

    assert [m.name for m in plan.apply] == ["coredns"]
    assert plan.delete == ("old",)
    assert all(machine_plan.empty for machine_plan in plan.machines.values())


def test_an_addon_switched_off_is_deleted_and_its_file_is_no_longer_wanted():
    of, seen = converged()
    less = cluster(addons=Addons(local_path=False))

    assert plan_of(less, seen).delete == ("local-path",)


def test_an_apiserver_that_is_not_ready_is_not_believed():
    of, seen = converged()
    lying = ApiView(ready=False)

    plan = plan_of(of, {**seen, "m1": replace(seen["m1"], api=lying)})

    assert plan.empty


# Packages and images


def test_packages_that_are_missing_are_planned():
    _, seen = converged(SMALL)

    plan = only_machine(replanned("w1", packages=seen["w1"].packages - {"bird2"}), "w1")

    assert plan.packages == ("bird2",)


def test_images_go_to_masters_whose_registry_lacks_them():
    plan = only_machine(replanned("m1", images=frozenset({"older"})), "m1")

    assert plan.images
    assert not plan.components


def test_without_a_set_of_images_none_is_planned():
    of, seen = converged()
    ready = artifacts(of)
    bare = replace(ready, items={k: v for k, v in ready.items.items() if k[0] != IMAGES})

    assert make_plan(of, trust(), seen, bare, NOW).empty


def test_each_machine_gets_what_is_made_for_its_architecture():
    of = cluster(master("m1"), worker("w1"))
    machines = {
        "m1": Disk(of.machine("m1"), LAB),
        "w1": Disk(of.machine("w1"), replace(LAB, arch="arm64")),
    }
    converge(of, machines)
    arm = artifacts(of).get("kubernetes/kubelet", "arm64").pin

    assert machines["w1"].binaries["/usr/local/bin/kubelet"].pin == arm
    assert machines["m1"].binaries["/usr/local/bin/kubelet"].pin != arm


def test_the_plan_names_the_machines_that_a_component_changes_on():
    _, seen = converged(SMALL)
    path = "/etc/containerd/config.toml"
    other = ObservedFile(path, "file", 0o644, "root", "root", 1, "0" * 64)

    plan = replanned("w1", files={**seen["w1"].files, path: other})

    assert plan.touching("containerd") == ("w1",)
    assert plan.touching("etcd", "containerd") == ("w1",)
    assert plan.touching("etcd") == ()


def test_a_plans_text_has_no_secret():
    text = repr(plan_of(OF, look(OF, disks(OF))))

    assert "PRIVATE KEY" not in text
    assert trust().encryption_key not in text
    assert trust().network_key not in text
