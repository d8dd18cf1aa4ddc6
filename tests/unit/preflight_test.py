"""Which machines are fit, and what is said of those that are not."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from provision.model.cluster import Cluster, Machine, Role, Ssh
from provision.model.distribution import UNKNOWN, find
from provision.model.facts import Facts
from provision.model.observed import (
    ApiView,
    Foreign,
    NodeView,
    Observed,
    ObservedBinary,
    ObservedUnit,
    Port,
)
from provision.model.settings.network import Api, HttpProxy, Networks
from provision.observe.parse import unreachable
from provision.plan.preflight import altered, preflight
from tests.world import fit_host

FACTS = Facts(
    "amd64", find("debian", (), "12"), "eth0", "10.0.0.0/24", 2, False, True, "/etc/resolv.conf"
)
OURS = {"cluster": "demo", "fingerprint": "f00d"}


def machine(name, *roles):
    number = 10 + int(name[-1]) + (100 if name.startswith("w") else 0)
    address = f"10.0.0.{number}"
    ssh = Ssh(hostname=address, user="admin", sudo=True)
    return Machine(name=name, address=IPv4Address(address), roles=frozenset(roles), ssh=ssh)


MASTER = machine("m1", Role.MASTER, Role.ETCD)
SECOND = machine("m2", Role.MASTER, Role.ETCD)
WORKER = machine("w1", Role.WORKER)


def cluster(*machines, **networks):
    return Cluster(
        name="demo",
        machines=machines or (MASTER,),
        networks=Networks(**networks),
        inventory=Path("/inventory.py"),
    )


def host(one, **values):
    fit = replace(
        fit_host(one),
        routes=("10.0.0.0/24",),
        ports=(Port("tcp", "*", 22, "sshd", "ssh.service"),),
        reaches={"10.0.0.12": True},
    )
    return replace(fit, **values)


LIKE = {"linuxmint": ("ubuntu", "debian"), "rocky": ("rhel", "centos", "fedora")}


def seen(one=MASTER, facts=FACTS, whose=None, **values):
    if "os_id" in values:
        os_id, version = values["os_id"], values.get("os_version", "12")
        facts = replace(facts, distribution=find(os_id, LIKE.get(os_id, ()), version))
    return Observed(machine=one.name, facts=facts, host=host(one, **values), **(whose or {}))


def judge(*observed, fingerprint=None, **networks):
    known = {m.name: m for m in (MASTER, SECOND, WORKER)}
    machines = [known[o.machine] for o in observed]
    return preflight(cluster(*machines, **networks), {o.machine: o for o in observed}, fingerprint)


def only(findings):
    (finding,) = findings
    return finding


def test_fit_machines_give_no_findings():
    assert judge(seen(MASTER), seen(SECOND), seen(WORKER), fingerprint="f00d") == []


@pytest.mark.parametrize(
    ("values", "fatal", "words"),
    [
        ({"os_id": "linuxmint", "os_version": "21"}, False, "is not tested"),
        ({"systemd": 0}, True, "does not run systemd"),
        ({"systemd": 237}, True, "systemd is 237"),
        ({"memory": 1500}, False, "1500 MiB of memory"),
        ({"cpus": 1}, False, "1 CPU"),
        ({"var_free": 1500}, True, "disk is full: 1500 MiB"),
        ({"var_free": 9000}, False, "nearly full: 9000 MiB"),
        ({"clock_offset": -45.0}, False, "clock is 45 seconds behind"),
        ({"clock_offset": 600.0}, True, "clock is 10 minutes ahead of"),
        ({"swap": ("/dev/sda2",)}, True, "swap is on (/dev/sda2)"),
        ({"swap": ("/dev/zram0",)}, True, "returns at the next boot"),
        ({"hostname": "localhost"}, True, "hostname is localhost"),
        ({"machine_id": ""}, True, "no machine-id"),
        ({"missing": ("overlay",)}, True, "no overlay"),
        ({"reaches": {"10.0.0.12": False}}, True, "SSH port of 10.0.0.12"),
        ({"downloads": {"docker.io": True, "quay.io": False}}, True, "no answer from quay.io,"),
        (
            {"foreign": (Foreign("k3s", "/etc/rancher/k3s"),)},
            True,
            "k3s that clusterctl did not make",
        ),
        (
            {"foreign": (Foreign("docker", "docker.service is running"),)},
            False,
            "Docker is installed",
        ),
        ({"routes": ("10.244.0.0/15",)}, True, "network of the pods, 10.244.0.0/16"),
        ({"routes": ("10.96.8.0/24",)}, True, "network of the services, 10.96.0.0/16"),
        ({"addresses": ("10.0.0.11", "10.96.0.1")}, True, "overlaps with its own 10.96.0.1/32"),
    ],
)
def test_one_thing_wrong_gives_one_finding(values, fatal, words):
    finding = only(judge(seen(**values)))

    assert finding.where == "m1"
    assert words in finding.what
    assert finding.fatal is fatal
    assert finding.hint


@pytest.mark.parametrize(
    ("values", "fatal", "words"),
    [
        ({"arch": "riscv64"}, True, "architecture is riscv64"),
        ({"cgroup_version": 1}, False, "cgroup v1"),
        ({"interface": "", "network": ""}, True, "no address 10.0.0.11; it has 10.0.0.11"),
        ({"distribution": UNKNOWN}, True, "cannot install packages on"),
    ],
)
def test_facts_are_judged_too(values, fatal, words):
    finding = only(judge(seen(facts=replace(FACTS, **values))))

    assert words in finding.what
    assert finding.fatal is fatal


def test_a_workers_needs_are_smaller():
    assert judge(seen(WORKER, memory=1500, cpus=1)) == []
    assert "600 MiB" in only(judge(seen(WORKER, memory=600))).what


@pytest.mark.parametrize(
    ("os_id", "version"),
    [
        *(("debian", "12"), ("ubuntu", "22.04"), ("ubuntu", "26.04"), ("amzn", "2023")),
        *(("rhel", "9.4"), ("rocky", "10.0"), ("almalinux", "9.6")),
    ],
)
def test_distributions_it_was_made_for_are_not_mentioned(os_id, version):
    one = replace(seen(os_id=os_id, os_version=version), packages=frozenset({"bird"}))

    assert judge(one) == []


@pytest.mark.parametrize(("os_id", "version"), [("debian", "11"), ("ubuntu", "20.04")])
def test_an_old_release_is_a_warning_and_its_nft_is_too_old_for_kubernetes(os_id, version):
    one = seen(os_id=os_id, os_version=version)

    warning = only(judge(one, proxy_mode="iptables", plugin="custom"))
    assert "is not tested" in warning.what
    assert not warning.fatal
    assert "Debian 12" in warning.hint
    ports = only([f for f in judge(one, proxy_mode="iptables") if f.what != warning.what])
    assert "pods with a hostPort do not start" in ports.what
    assert not ports.fatal
    fatal = only([f for f in judge(one) if f.fatal])
    assert "older than 1.0.1, which kube-proxy needs" in fatal.what
    assert '"proxy_mode": "iptables"' in fatal.hint


def test_epel_has_another_name_for_each_distribution():
    hints = {
        os_id: only(judge(seen(os_id=os_id, os_version="9.6"))).hint
        for os_id in ("rhel", "almalinux", "ol")
    }

    assert "epel-release-latest-9.noarch.rpm" in hints["rhel"]
    assert "dnf install epel-release;" in hints["almalinux"]
    assert "dnf install oracle-epel-release-el9" in hints["ol"]


def test_swap_of_a_containers_host_is_only_a_warning():
    container = replace(FACTS, container=True)

    assert not only(judge(seen(facts=container, swap=("/dev/sda2",)))).fatal


def test_br_netfilter_is_missed_only_by_iptables():
    assert judge(seen(missing=("br_netfilter",))) == []
    assert not only(judge(seen(missing=("br_netfilter",)), proxy_mode="iptables")).fatal


@pytest.mark.parametrize(
    ("values", "facts", "what", "hint"),
    [
        ({}, {}, "has no nft_masq, NF_TABLES_INET", "install the distribution's standard kernel"),
        ({"os_id": "ubuntu"}, {}, "nft_masq", "apt-get install linux-modules-extra-6.1.0, or"),
        ({"os_id": "rocky"}, {}, "nft_masq", "kernel-modules-6.1.0, or"),
        ({}, {"container": True}, "nft_masq", "on the container's host"),
        ({"outdated": True}, {}, "kernel 6.1.0 cannot load nft_masq, NF_TABLES_INET: an", "reboot"),
    ],
)
def test_parts_that_the_kernel_lacks_are_one_finding_with_the_way_to_get_them(
    values, facts, what, hint
):
    missing = ("br_netfilter", "nft_masq", "NF_TABLES_INET")
    one = seen(facts=replace(FACTS, **facts), **{"os_version": "99", "missing": missing} | values)

    finding = only([f for f in judge(one) if "kernel" in f.what])

    assert finding.fatal
    assert what in finding.what
    assert hint in finding.hint


@pytest.mark.parametrize("kernel", ["5.10.0-33-amd64", "5.4.0-200-generic", "4.18.0-553.el8"])
def test_kube_proxys_nftables_needs_a_newer_kernel(kernel):
    finding = only(judge(seen(kernel=kernel)))

    assert finding.fatal
    assert f"kernel is {kernel}; kube-proxy needs 5.13" in finding.what
    assert judge(seen(kernel=kernel), proxy_mode="iptables") == []


@pytest.mark.parametrize("kernel", ["5.13.0", "5.14.0-503.el9.x86_64", "6.1", "6.18.5+", "?"])
def test_kernels_that_will_do(kernel):
    assert judge(seen(kernel=kernel)) == []


@pytest.mark.parametrize(
    ("error", "words", "hint"),
    [
        (
            "sudo wants a password of admin",
            "is unreachable: sudo wants a password of admin",
            "ssh -p",
        ),
        ("no route to host", "is unreachable: no route", "ssh -p 22 admin@10.0.0.11"),
    ],
)
def test_a_machine_that_cannot_be_looked_at_says_why(error, words, hint):
    finding = only(judge(unreachable("m1", error)))

    assert words in finding.what
    assert hint in finding.hint
    assert finding.fatal


def test_a_new_machine_is_not_blamed_for_not_reaching_one_that_is_off():
    off = unreachable("m2", "no route to host", off=True)
    new = seen(reaches={str(SECOND.address): False})
    member = seen(WORKER, whose={"etcd_formed": True})

    assert [(f.where, f.fatal) for f in judge(new, off, member)] == [("m2", False)]


def test_a_server_that_does_not_answer_is_named_with_the_proxy_and_what_to_type():
    silent = {"registry.k8s.io": False, "github.com": True}
    observed = seen(MASTER, downloads=silent)
    given = cluster(MASTER)

    found = only(preflight(given, {"m1": observed}, None))
    assert found.where == "m1"
    assert found.what == "gets no answer from registry.k8s.io, nor from a mirror of it"
    shown = f"clusterctl ssh {given.inventory} m1 -- curl -sSI https://registry.k8s.io"
    assert f"`{shown}` shows why; set `proxy`, `registry_mirrors`" in found.hint

    url = "http://me:word@proxy.example.org:3128"  # pragma: allowlist secret
    by_proxy = given.model_copy(update={"proxy": HttpProxy(https=url)})
    found = only(preflight(by_proxy, {"m1": observed}, None))
    assert found.what.endswith("of it, through the proxy http://proxy.example.org:3128")
    assert "curl -sSI --proxy http://proxy.example.org:3128 https" in found.hint
    assert "correct `proxy`" in found.hint
    assert "word" not in found.hint


def test_the_hint_that_came_with_the_error_is_kept():
    assert only(judge(unreachable("m1", "host key changed", "compare it"))).hint == "compare it"


@pytest.mark.parametrize(
    "port",
    [6443, 2379, 2380, 2381, 10250, 10248, 10256, 10249, 10257, 10259, 7443, 7480, 5000, 7490],
)
def test_a_needed_port_that_another_process_holds_is_an_error(port):
    held = Port("tcp", "*", port, "nginx", "nginx.service")

    finding = only(judge(seen(ports=(held, replace(held, address="::")))))

    assert f"port {port}, for " in finding.what
    assert "taken by nginx (nginx.service)" in finding.what
    assert "systemctl disable --now nginx.service" in finding.hint


def test_a_worker_wants_no_ports_of_a_master():
    held = tuple(Port("tcp", "*", port, "x") for port in (6443, 2379, 10257, 7480))

    assert judge(seen(WORKER, ports=held)) == []


@pytest.mark.parametrize(
    ("held", "clash"),
    [
        (Port("tcp", "127.0.0.1", 10257, "x"), True),
        (Port("tcp", "10.0.0.11", 10257, "x"), False),  # ours listens on the loopback only
        (Port("tcp", "127.0.0.1", 2380, "x"), False),  # and there on its own address only
        (Port("tcp", "10.0.0.11", 2380, "x"), True),
        (Port("tcp", "127.0.0.1", 6443, "x"), True),
        (Port("udp", "*", 6443, "x"), False),
    ],
)
def test_a_port_clashes_only_at_the_address_that_is_wanted(held, clash):
    assert bool(judge(seen(ports=(held,)))) is clash


def test_ports_held_by_the_clusters_own_units_count_as_free():
    ports = (
        Port("tcp", "*", 6443, "kube-apiserver", "kube-apiserver.service"),
        Port("tcp", "127.0.0.1", 7443, "haproxy", "clusterctl-haproxy.service"),
        Port("tcp", "*", 10250),
        Port("tcp", "127.0.0.1", 10257, "kube-controller"),  # it ended as it was looked at
    )
    name = "kube-apiserver.service"
    unit = ObservedUnit(name, "loaded", "active", "running", "enabled")

    ours = replace(seen(ports=ports, whose=OURS), units={name: unit})
    new = replace(seen(ports=ports), units={name: unit})

    assert judge(ours) == []
    assert [f.what.split(",")[0] for f in judge(new)] == [
        "port 6443",
        "port 10250",
        "port 10257",
    ]


def test_pod_routes_and_addresses_are_no_overlap_on_a_machine_of_the_cluster():
    values = {"routes": ("10.244.3.0/24",), "addresses": ("10.0.0.11", "10.244.3.1")}

    assert judge(seen(whose=OURS, **values)) == []
    assert "10.244.3.0/24, 10.244.3.1/32" in only(judge(seen(**values))).what


@pytest.mark.parametrize("attribute", ["hostname", "machine_id"])
def test_a_value_that_two_machines_share_is_reported_once_naming_both(attribute):
    twin = getattr(host(MASTER), attribute)

    findings = judge(seen(MASTER), seen(SECOND, **{attribute: twin}))

    same = [f for f in findings if "same" in f.what]
    assert only(same).where == "m2"
    assert f"as m1: {twin}" in only(same).what


@pytest.mark.parametrize(
    ("name", "command"),
    [("firewalld", "systemctl disable --now firewalld"), ("ufw", "ufw disable")],
)
def test_a_foreign_firewall_stops_a_new_machine_but_not_one_that_runs(name, command):
    new = only(judge(seen(firewalls=(name,))))
    ours = only(judge(seen(firewalls=(name,), whose=OURS), fingerprint="f00d"))

    assert (new.fatal, ours.fatal) == (True, False)
    assert f"{name} is active" in new.what
    assert command in new.hint


def test_a_selinux_denial_is_reported_with_the_command_that_allows_it():
    off = ("haproxy_connect_any", "keepalived_connect_any")
    container = replace(FACTS, container=True)

    new = only(judge(seen(forbidden=off)))
    assert new.fatal
    assert "haproxy_connect_any is off" in new.what
    assert new.hint == "setsebool -P haproxy_connect_any 1"
    assert not only(judge(seen(forbidden=off, whose=OURS), fingerprint="f00d")).fatal
    assert judge(seen(forbidden=off, facts=container)) == []
    assert judge(seen(WORKER, forbidden=off[1:])) == []
    with_vip = only(virtual(seen(forbidden=off)))
    assert with_vip.hint.endswith(" && setsebool -P keepalived_connect_any 1")


ROCKY = {"os_id": "rocky", "os_version": "9.5", "kernel": "5.14.0-503.el9.x86_64"}


@pytest.mark.parametrize("packages", [set(), {"haproxy"}])
def test_a_new_machine_without_a_repository_that_has_bird_is_found(packages):
    one = seen(**ROCKY)

    finding = only(judge(replace(one, packages=frozenset(packages))))

    assert finding.fatal
    assert "no BIRD" in finding.what
    assert "dnf install epel-release" in finding.hint
    assert judge(replace(one, packages=frozenset({"epel-release"}))) == []
    assert judge(replace(one, packages=frozenset({"bird"}))) == []
    assert judge(one, plugin="custom") == []
    assert judge(replace(one, record={"host": ()}, cluster="demo")) == []


@pytest.mark.parametrize(
    ("os_id", "way"),
    [
        ("rhel", "https://dl.fedoraproject.org/pub/epel/epel-release-latest-10.noarch.rpm"),
        ("ol", "oracle-epel-release-el10"),
        ("almalinux", "epel-release"),
    ],
)
def test_epel_comes_from_where_each_distribution_has_it(os_id, way):
    one = seen(**(ROCKY | {"os_id": os_id, "os_version": "10.1"}))

    assert only(judge(one)).hint.startswith(f"dnf install {way}; or ")


def test_swap_that_is_in_no_fstab_stays_off_too():
    hint = only(judge(seen(swap=("/dev/sda2", "/swap file")))).hint

    assert "swapoff -a" in hint
    assert "systemctl mask dev-sda2.swap 'swap\\x20file.swap'" in hint


def test_amazon_linux_has_no_epel():
    one = seen(os_id="amzn", os_version="2023")

    assert "epel" not in only(judge(one)).hint


def test_fedora_has_bird_itself():
    one = seen(os_id="fedora", os_version="43")

    assert all("BIRD" not in finding.what for finding in judge(one))


def test_a_machine_of_another_cluster_is_refused():
    other = {"cluster": "prod", "fingerprint": "beef"}

    finding = only(judge(seen(whose=other), fingerprint="f00d"))

    assert "belongs to the cluster prod, not to demo" in finding.what
    assert finding.fatal


def test_a_machine_of_another_cluster_of_the_same_name_is_refused():
    assert judge(seen(whose=OURS), fingerprint="f00d") == []
    assert judge(seen(whose=OURS)) == []  # a new operator's computer knows no authority yet
    assert "another cluster of the name demo" in only(judge(seen(whose=OURS), fingerprint="b")).what


def test_the_routed_plug_in_needs_neighbours():
    far = replace(FACTS, network="10.9.0.0/24")
    machines = (seen(MASTER), seen(SECOND), seen(WORKER, facts=far))

    finding = only(judge(*machines))

    assert finding.where == "w1"
    assert "10.9.0.0/24, others in 10.0.0.0/24" in finding.what
    assert judge(*machines, plugin="custom") == []


def test_all_findings_come_at_once_in_the_order_of_the_machines():
    findings = judge(
        unreachable("w1", "timed out"),
        seen(SECOND, hostname="x", systemd=0, var_free=1, clock_offset=-3600.0),
        seen(MASTER, machine_id="id of m2"),
    )

    assert [f.where for f in findings] == ["w1", "m2", "m2", "m2", "m2", "m1"]


def test_the_networks_of_the_inventory_are_those_compared():
    pods = IPv4Network("10.0.0.0/16")

    assert "10.0.0.0/24" in only(judge(seen(), pods=pods)).what


def test_a_binary_that_was_changed_is_named_with_its_machine():
    def binary(path, intact):
        return {path: ObservedBinary(path, "pin", "1.36.3", intact)}

    whole = seen(whose={"binaries": binary("/usr/local/bin/kubectl", True)})
    assert altered(Path("/inventory.py"), {"m1": whole}) == []
    changed = seen(whose={"binaries": binary("/usr/local/bin/kubelet", False)})
    (finding,) = altered(Path("/inventory.py"), {"m1": whole, "w1": changed})
    assert finding.where == "w1"
    assert "/usr/local/bin/kubelet" in finding.what
    assert finding.fatal


@pytest.mark.parametrize(
    ("component", "role", "what"),
    [("etcd", Role.MASTER, "an etcd member"), ("kubelet", Role.ETCD, "a node")],
)
def test_roles_of_members_and_nodes_are_not_taken_away_by_an_edit(component, role, what):
    one = replace_roles(MASTER, role)
    was = replace(seen(one), record={component: (("unit", f"{component}.service", "d"),)}, **OURS)

    finding = only(preflight(cluster(one), {"m1": was}, "f00d"))

    assert finding.fatal
    assert f"is {what} of the cluster" in finding.what
    assert "clusterctl node remove /inventory.py m1" in finding.hint


def replace_roles(one, *roles):
    return one.model_copy(update={"roles": frozenset(roles)})


# The API's virtual address


def virtual(*observed, vip="10.0.0.100"):
    known = {m.name: m for m in (MASTER, SECOND, WORKER)}
    of = cluster(*(known[o.machine] for o in observed))
    of = of.model_copy(update={"api": Api(vip=IPv4Address(vip))})
    return preflight(of, {o.machine: o for o in observed}, None)


def test_a_virtual_address_outside_of_the_masters_network_is_found():
    finding = only(virtual(seen(MASTER), seen(WORKER), vip="10.0.1.100"))

    assert finding.fatal
    assert finding.where == "m1"
    assert "10.0.0.0/24, which 10.0.1.100 is not an address of" in finding.what


def test_a_virtual_address_that_another_host_has_is_reported_once():
    finding = only(virtual(seen(MASTER, vip_answers=True), seen(SECOND, vip_answers=True)))

    assert finding.fatal
    assert "another machine answers at 10.0.0.100" in finding.what


def test_a_virtual_address_held_by_a_master_is_no_conflict():
    holder = seen(SECOND, addresses=("10.0.0.12", "10.0.0.100"))

    assert virtual(seen(MASTER, vip_answers=True), holder) == []


def test_while_a_master_is_not_seen_it_may_be_the_holder():
    away = unreachable("m2", "no answer")

    found = virtual(seen(MASTER, vip_answers=True), away)

    assert [f for f in found if "another machine" in f.what] == []


def test_a_node_that_the_inventory_has_lost_is_a_warning():
    nodes = (NodeView("m1", ready=True), NodeView("w3", ready=True))
    seen = Observed("m1", facts=FACTS, host=host(MASTER), api=ApiView(ready=True, nodes=nodes))

    (found,) = preflight(cluster(), {"m1": seen}, None)

    assert (found.where, found.fatal) == ("w3", False)
    assert "clusterctl node remove /inventory.py w3" in found.hint


def test_a_resolver_that_pods_cannot_use_is_refused_with_the_way():
    one = seen(resolver="127.0.0.1")
    finding = only(judge(one))

    assert finding.fatal
    assert "DNS server 127.0.0.1 answers on the machine only" in finding.what
    assert '"extra_args": {"kubelet": {"resolv-conf": "/etc/kubelet-resolv.conf"}}' in finding.hint
    told = {"extra_args": {"kubelet": {"resolv-conf": "/etc/kubelet-resolv.conf"}}}
    assert preflight(cluster().model_copy(update=told), {"m1": one}, None) == []
    running = only(judge(seen(resolver="127.0.0.1", whose=OURS), fingerprint="f00d"))
    assert not running.fatal


@pytest.mark.parametrize(
    ("hostname", "offered"),
    [
        *(("node-7", True), ("node-7.example.org", True)),
        *(("M1", False), ("node_7", False), ("localhost.localdomain", False), ("w1", False)),
        *(("a" * 53, False), ("10.0.0.11", False)),
    ],
)
def test_only_a_hostname_that_the_inventory_takes_is_offered_as_the_name(hostname, offered):
    finding = next(f for f in judge(seen(hostname=hostname), seen(WORKER)) if f.where == "m1")

    assert finding.hint.startswith("hostnamectl set-hostname m1")
    assert (f"or name it {hostname}" in finding.hint) is offered


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("systemd-machine-id-setup"), reason="needs systemd"
)
def test_the_hint_for_a_clone_gives_it_another_machine_id(tmp_path):
    twins = judge(seen(MASTER), seen(SECOND, machine_id="id of m1"))
    hint = only([f for f in twins if "machine-id" in f.what]).hint
    command = re.search(r"on a clone: (.*); then reboot", hint)[1]
    for path in ("etc/machine-id", "var/lib/dbus/machine-id"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    command = command.replace("/etc", f"{tmp_path}/etc").replace("/var", f"{tmp_path}/var")

    subprocess.run(["sh", "-c", f"{command} --root={tmp_path}"], check=True)

    made = (tmp_path / "etc/machine-id").read_text()
    assert len(made) == 33
    assert made != "3d1219c7c4c5404aaa1f6d2a48adfda4\n"
