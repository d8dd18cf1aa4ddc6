"""What a record says beside what is wanted: nothing is forgotten, nothing that is wanted goes."""

import copy
import subprocess
from ipaddress import IPv4Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.desired.catalog import desired
from provision.model import paths
from provision.model.cluster import Role
from provision.model.settings.components import Addons
from provision.model.settings.network import Api, Networks
from provision.plan.record import Removal, Wanted
from tests.world import (
    LAB,
    built,
    changes,
    cluster,
    converge,
    look,
    machine,
    master,
    plan_of,
    trust,
    worker,
)

VIP = Api(vip=IPv4Address("10.77.0.100"))
ONE = cluster(master("m1"), worker("w1"), api=VIP)


def wanted_paths(of, name):
    states = desired(of, of.machine(name), trust(), LAB).values()
    return {
        path
        for s in states
        for path in (
            *(x.path for x in (*s.files, *s.directories, *s.binaries)),
            *(p for leaf in s.leaves for p in (leaf.cert_path, leaf.key_path)),
        )
    }


def becomes(of, machines=None):
    """The removals that are planned when this is what the inventory says now."""
    plan = plan_of(of, look(of, machines or built(ONE)))
    return {name: {r.component: r for r in p.remove} for name, p in plan.machines.items()}


def edited(**settings):
    return cluster(*ONE.machines, **{"api": VIP, **settings})


def test_earlier_kernel_settings_stay_in_the_record():
    states = desired(ONE, ONE.machine("m1"), trust(), LAB)
    record = {"kernel": (("sysctl", "/proc/sys/net/ipv4/ip_forward", "0", "1"),)}

    assert Wanted.of(states, ONE, trust()).removals(record) == ()


def test_an_unchanged_cluster_has_nothing_to_prune():
    assert becomes(ONE) == {"m1": {}, "w1": {}}


def test_a_virtual_address_that_is_taken_out_takes_keepalived_along():
    found = becomes(edited(api=Api()))

    assert found["w1"] == {}
    assert set(found["m1"]) == {"keepalived"}
    removal = found["m1"]["keepalived"]
    assert removal.whole
    assert removal.units == ("clusterctl-keepalived.service",)
    assert set(removal.paths) == {
        "/etc/clusterctl/keepalived.conf",
        "/etc/systemd/system/clusterctl-keepalived.service",
        "/usr/local/sbin/clusterctl-check-apiserver",
    }
    assert ("cleanup", "ip address del 10.77.0.100/32 dev eth0") in removal.lines
    # /etc/clusterctl is others' too.
    assert ("dir", paths.CONFIG) in removal.forget


def test_without_kube_proxy_its_binary_is_pruned_too():
    found = becomes(edited(networks=Networks(proxy_mode="none")))

    for name in ("m1", "w1"):
        assert set(found[name]) == {"kube-proxy", "artifacts"}
        assert found[name]["kube-proxy"].units == ("kube-proxy.service",)
        assert found[name]["artifacts"].paths == ("/usr/local/bin/kube-proxy",)


def test_another_network_plug_in_replaces_the_built_in_one():
    found = becomes(edited(networks=Networks(plugin="custom")))

    for name in ("m1", "w1"):
        removal = found[name]["pod-network"]
        assert removal.whole
        assert "/etc/cni/net.d/10-containerd-net.conflist" in removal.paths
        # The directory is containerd's, and the other network's files are in it.
        assert "/etc/cni/net.d" not in removal.paths
    assert found["m1"]["manifests"].paths == (
        "/etc/kubernetes/clusterctl/network-policy-warning.yaml",
    )
    assert not found["m1"]["manifests"].whole


def test_the_file_of_an_addon_that_is_switched_off_is_pruned():
    found = becomes(edited(addons=Addons(local_path=False)))

    assert found["m1"]["manifests"] == Removal(
        "manifests", (("file", "/etc/kubernetes/clusterctl/local-path.yaml"),)
    )


def test_a_master_that_becomes_a_worker_loses_the_control_plane_and_its_images():
    def shape(*roles):
        members = [machine(f"e{n}", Role.ETCD) for n in (1, 2, 3)]
        return cluster(master_only("m1"), machine("m2", *roles), *members, api=Api())

    def master_only(name):
        return machine(name, Role.MASTER)

    before, after = shape(Role.MASTER), shape(Role.WORKER)
    found = becomes(after, built(before))["m2"]

    assert {
        "registry",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "manifests",
        "certificates",
        "backup",
        "artifacts",
    } == set(found)
    assert found["certificates"].units == ("clusterctl-certs-approve.timer",)
    assert "/etc/kubernetes/pki/ca.key" in found["kube-apiserver"].paths
    assert "/usr/local/bin/kube-apiserver" in found["artifacts"].paths
    assert "/usr/local/bin/kubelet" not in found["artifacts"].paths
    assert [line[0] for line in found["artifacts"].forget] == ["images"]


@pytest.mark.parametrize("roles", [{Role.MASTER}, {Role.WORKER}, {Role.ETCD}])
def test_members_and_nodes_are_left_as_they_are(roles):
    """They leave by `node remove`; preflight says so."""
    others = [master(f"m{n}") for n in (1, 2)]
    before = cluster(*others, master("m3"), api=VIP)
    after = cluster(*others, machine("m3", *roles), api=Api())

    assert becomes(after, built(before))["m3"] == {}


def test_a_file_that_a_newer_version_dropped_is_pruned_and_its_unit_stops():
    machines = copy.deepcopy(built(ONE))
    old = "file\t/etc/clusterctl/old.conf\nunit\told.service\tdigest\ndir\t/etc/old\nuser\told\n"
    machines["m1"].records["haproxy"] += old

    found = becomes(ONE, machines)

    assert found["w1"] == {}
    assert found["m1"] == {
        "haproxy": Removal("haproxy", tuple(tuple(x.split("\t")) for x in old.splitlines()))
    }


@pytest.mark.parametrize(
    "path", ["/etc", "/etc/kubernetes", paths.ETCD_DATA, paths.KUBELET_DATA, "/var/lib"]
)
def test_a_recorded_path_that_contains_a_wanted_file_stays(path):
    machines = copy.deepcopy(built(ONE))
    machines["m1"].records["haproxy"] += f"leftover\t{path}\n"
    machines["m1"].records["gone"] = f"leftover\t{path}\n"

    assert path not in {p for r in becomes(ONE, machines)["m1"].values() for p in r.paths}


def test_a_path_that_is_another_components_now_changes_hands():
    machines = copy.deepcopy(built(ONE))
    moved = "file\t/etc/clusterctl/haproxy.cfg"
    records = machines["m1"].records
    records["haproxy"] = records["haproxy"].replace(f"{moved}\n", "")
    records["containerd"] += f"{moved}\n"

    converge(ONE, machines)

    assert "/etc/clusterctl/haproxy.cfg" in machines["m1"].there
    assert moved in records["haproxy"]
    assert moved not in records["containerd"]


def test_a_record_that_lacks_a_leftover_or_a_way_to_clean_up_is_written_anew():
    machines = copy.deepcopy(built(ONE))
    records = machines["w1"].records
    whole = dict(records)
    for name in ("kubelet", "pod-network"):
        kept = [
            x for x in records[name].splitlines() if x.split("\t")[0] not in {"cleanup", "leftover"}
        ]
        records[name] = "".join(f"{x}\n" for x in kept)

    plan = plan_of(ONE, look(ONE, machines)).machines["w1"]
    assert set(plan.components) == {"kubelet", "pod-network"}
    assert all(c.record and not c.units and not c.files for c in plan.components.values())
    converge(ONE, machines)

    assert records == whole


def test_a_machine_with_etcd_alone_says_whose_it_is():
    of = cluster(machine("m1", Role.MASTER), *(machine(f"e{n}", Role.ETCD) for n in (1, 2, 3)))

    seen = look(of, built(of))

    assert {(o.cluster, o.fingerprint) for o in seen.values()} == {("demo", trust().fingerprint)}


def test_every_way_to_clean_up_is_one_line_that_sh_can_read():
    for state in desired(ONE, ONE.machine("m1"), trust(), LAB).values():
        assert "\n" not in state.cleanup
        assert "\t" not in state.cleanup
        subprocess.run(["sh", "-n"], input=state.cleanup, text=True, check=True)


# Whatever the inventory says next, and wherever a run is killed

inventories = st.builds(
    edited,
    api=st.sampled_from([VIP, Api(), Api(vip=IPv4Address("10.77.0.101"))]),
    networks=st.builds(
        Networks,
        plugin=st.sampled_from(["routed", "custom"]),
        proxy_mode=st.sampled_from(["nftables", "iptables", "none"]),
    ),
    addons=st.builds(Addons, coredns=st.booleans(), local_path=st.booleans()),
    registry_mirrors=st.sampled_from([{}, {"example.org": ("https://mirror.example.org",)}]),
)


def all_is_recorded(disk):
    named = {
        fields[1]
        for text in disk.records.values()
        for fields in (line.split("\t") for line in text.splitlines())
        if len(fields) > 1
    }
    return {*disk.there, *disk.binaries, *disk.units} <= named


def killed_run(of, machines, where):
    """A run that ends in the middle of its n-th step."""
    observed = look(of, machines)
    plan = plan_of(of, observed)
    steps = [
        *(
            (machines[name].carry_out, change)
            for name, cs in changes(of, plan, observed).items()
            for change in cs
        ),
        *((machines[name].remove, p.remove) for name, p in plan.machines.items() if p.remove),
    ]
    for number, (step, what) in enumerate(steps):
        step(what, killed=number == where)
        if number == where:
            return


@given(st.lists(st.tuples(inventories, st.integers(0, 30)), min_size=1, max_size=3), inventories)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_forgotten_and_the_last_inventory_wins(runs, last):
    machines = copy.deepcopy(built(ONE))
    for of, where in runs:
        killed_run(of, machines, where)
        assert all(all_is_recorded(disk) for disk in machines.values())

    converge(last, machines)

    for name, disk in machines.items():
        assert all_is_recorded(disk)
        wanted = wanted_paths(last, name)
        mine = {p for p in disk.there if p not in wanted}
        assert {p for p in mine if disk.there[p].kind == "file"} == set()
        assert {*disk.binaries} <= wanted
        wanted_units = {
            u.name
            for s in desired(last, last.machine(name), trust(), LAB).values()
            for u in s.units
        }
        assert set(disk.units) == wanted_units
    again = plan_of(last, look(last, machines))
    assert {n: p for n, p in again.machines.items() if not p.empty} == {}
