"""What a probe printed, as values. `data/probe_master.txt` is what a lab machine said."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.artifacts import images
from provision.model.observed import EtcdMember, Foreign, ObservedUnit, PodNetwork, Port
from provision.observe.parse import parse, unreachable

MASTER = (Path(__file__).parent / "data" / "probe_master.txt").read_text()
BEGAN = float(re.search(r"^@@ begin\n(.*)", MASTER, re.M)[1])
ENDED = float(re.search(r"^@@ end\n(.*)", MASTER, re.M)[1])


def seen(output=MASTER):
    return parse("m1", output, BEGAN, ENDED)


def without(section, output=MASTER):
    return re.sub(rf"^@@ {section}\n(?:(?!@@ ).*\n)*", "", output, flags=re.M)


def with_section(section, text, output=MASTER):
    return without("end", without(section, output)) + f"@@ {section}\n{text}\n@@ end\n{ENDED}\n"


def test_a_master_is_read_whole():
    master = seen()

    assert master.reachable
    assert (master.cluster, master.fingerprint) == ("demo", "f00d")
    assert (master.facts.arch, master.facts.distribution.name) == ("amd64", "Debian 12")
    assert (master.facts.interface, master.facts.network) == ("eth0", "10.77.0.0/16")
    assert master.facts.container
    assert not master.facts.may_raise_limits
    assert master.facts.resolv_conf == "/etc/resolv.conf"
    assert (master.host.hostname, master.host.systemd) == ("m1", 252)
    assert (master.host.os_id, master.host.os_version) == ("debian", "12")
    assert master.host.routes == ("10.77.0.0/16",)
    assert master.host.missing == ()
    assert master.host.foreign == ()
    assert master.packages == {"bash", "haproxy"}
    assert master.images == {"abcdef"}
    assert (master.etcd_data, master.etcd_formed, master.registered) == (True, False, False)
    assert len(master.binaries) == 4
    assert all(binary.intact for binary in master.binaries.values())
    assert len([path for path in master.files if path.startswith("/etc/clusterctl/")]) == 40


def test_the_certificates_are_read_as_openssl_reads_them():
    pem = seen().certificates["/etc/kubernetes/pki/admin.crt"]

    subject = subprocess.run(
        ["openssl", "x509", "-noout", "-subject"],
        input=pem,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "system:masters" in subject


def test_the_clock_is_compared_at_the_middle_of_the_round_trip():
    late = parse("m1", MASTER, BEGAN - 100.5, ENDED - 99.5)

    assert late.host.clock_offset == pytest.approx(100)
    assert seen().host.clock_offset == pytest.approx(0)


def test_units_are_those_recorded_and_those_asked_for():
    units = seen().units

    assert set(units) == {
        *("etcd.service", "kube-apiserver.service"),
        *("ssh.service", "kubelet.service", "bird.service"),
    }
    etcd = units["etcd.service"]
    assert replace(etcd, started=0) == ObservedUnit(
        "etcd.service", "loaded", "active", "running", "static", digest="dig1"
    )
    assert etcd.started > 0
    assert units["kubelet.service"].load == "not-found"
    assert (units["ssh.service"].restarts, units["ssh.service"].digest) == (5, "")


def test_a_unit_whose_nft_table_was_flushed_counts_as_stopped():
    masquerade = "clusterctl-masquerade.service"

    def seen_with(tables):
        output = with_section("units", running(masquerade, "ssh.service"))
        output = with_section("asked", f"{masquerade}\nssh.service", output)
        output = with_section("asked-tables", "inet clusterctl-firewall\nip clusterctl", output)
        return seen(output if tables is None else with_section("tables", tables, output))

    flushed = seen_with("inet clusterctl-firewall")
    assert flushed.units[masquerade].lacks == "ip clusterctl"
    assert not flushed.runs(masquerade)
    assert flushed.runs("ssh.service")
    assert seen_with("ip clusterctl").runs(masquerade)
    assert seen_with(None).runs(masquerade)  # nftables gave no answer


def test_a_table_that_was_not_asked_for_is_not_missing():
    output = with_section("units", running("kube-proxy.service"))
    output = with_section("asked", "kube-proxy.service", output)
    output = with_section("tables", "", output)

    assert seen(with_section("asked-tables", "ip clusterctl", output)).runs("kube-proxy.service")
    gone = seen(with_section("asked-tables", "ip kube-proxy", output))
    assert gone.units["kube-proxy.service"].lacks == "ip kube-proxy"


def test_the_pod_network_is_read():
    output = with_section("pods", "cidr=10.244.3.0/24\nmtu=1450\nbridge=10.244.3.1/24")
    output = with_section("pod-routes", "10.244.4.0/24\n10.244.5.0/24", output)
    output = with_section("neighbours", "10.77.0.12=Full/DR", output)
    node = seen(with_section("unmapped", "default/web", output))

    assert node.pods == PodNetwork(
        cidr="10.244.3.0/24",
        mtu="1450",
        bridge="10.244.3.1/24",
        routes=frozenset({"10.244.4.0/24", "10.244.5.0/24"}),
        neighbours={"10.77.0.12": "Full/DR"},
        unmapped=("default/web",),
    )
    assert node.host.routes == seen().host.routes
    assert seen().pods is None


def test_listening_sockets_carry_their_process_and_its_unit():
    assert Port("tcp", "*", 6443, "kube-apiserver", "kube-apiserver.service") in seen().host.ports


def test_a_port_that_several_processes_hold_is_its_first_ones():
    sockets = (
        'tcp LISTEN 0 511 *:80 *:* users:(("nginx",pid=31,fd=6),("nginx",pid=30,fd=6))\n'
        'tcp LISTEN 0 4096 *:2222 *:* users:(("sshd",pid=40,fd=3),("systemd",pid=1,fd=99))'
    )
    cgroups = (
        "==> /proc/31/cgroup <==\n0::/system.slice/nginx.service\n"
        "==> /proc/40/cgroup <==\n0::/system.slice/ssh.service"
    )
    machine = seen(with_section("cgroups", cgroups, with_section("sockets", sockets)))

    assert machine.host.ports == (
        Port("tcp", "*", 80, "nginx", "nginx.service"),
        Port("tcp", "*", 2222, "sshd", "ssh.service"),
    )
    assert machine.facts.ssh_ports == (2222,)


def test_without_ss_the_sockets_of_proc_net_are_read():
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        "   0: 0100007F:0C38 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n"
        "   1: 0100007F:9C40 0100007F:0C38 01 00000000:00000000 00:00000000 00000000     0"
    )
    six = (
        "  sl  local_address                         remote_address                        st\n"
        "   0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A"
    )
    output = with_section("proc-net tcp", table, without("sockets", without("cgroups")))

    ports = seen(with_section("proc-net tcp6", six, output)).host.ports

    assert ports == (Port("tcp", "127.0.0.1", 3128), Port("tcp", "::", 6443))


def test_etcd_is_healthy_when_it_answered_a_linearizable_read():
    etcd = seen().etcd

    assert etcd.healthy
    assert etcd.members == (EtcdMember("b71f75320dc06a6c", "m1", ("http://127.0.0.1:2380",)),)
    assert etcd.id == etcd.leader == "b71f75320dc06a6c"
    assert etcd.version == "3.6.16"
    assert etcd.db_size > 0
    assert etcd.revision > 0


def test_without_a_quorum_the_members_are_those_that_the_member_remembers():
    lines = re.search(r"^@@ etcd-members\n(.*)", MASTER, re.M)[1]
    output = with_section("etcd-members", "Error: context deadline exceeded")
    output = with_section("etcd-remembered", lines, output)

    etcd = seen(output).etcd

    assert not etcd.healthy
    assert [member.name for member in etcd.members] == ["m1"]
    assert etcd.error == "Error: context deadline exceeded"


def test_an_etcd_that_does_not_answer_says_why():
    output = with_section(
        "etcd-status",
        '{"level":"warn","msg":"retrying of unary invoker failed"}\n'
        "Failed to get the status of endpoint https://127.0.0.1:2379 (context deadline exceeded)\n"
        "null",
        without("etcd-members"),
    )

    etcd = seen(output).etcd

    assert not etcd.healthy
    assert etcd.error.startswith("Failed to get the status of endpoint")


def test_a_machine_without_etcd_or_apiserver_has_no_view_of_them():
    output = MASTER
    for section in ("etcd-status", "etcd-members", "api-ready", "api-version", "api-objects"):
        output = without(section, output)

    assert (seen(output).etcd, seen(output).api) == (None, None)
    assert seen(output).reachable


def test_the_api_shows_nodes_add_ons_and_what_was_applied():
    api = seen().api

    assert (api.ready, api.version, api.error) == (True, "1.36.3", "")
    assert api.applied == {"access": "def", "coredns": "abc"}
    first, second = api.nodes
    assert (first.name, first.ready, first.address) == ("m1", True, "10.77.0.4")
    assert (first.kubelet, first.pod_cidr) == ("v1.36.3", "10.244.0.0/24")
    assert first.conditions["MemoryPressure"] == "False"
    assert first.labels["node-role.kubernetes.io/control-plane"] == ""
    assert first.annotations == {"clusterctl/labels": "zone"}
    assert "node-role.kubernetes.io/control-plane:NoSchedule" in first.taints
    assert (second.ready, second.unschedulable, second.labels) == (False, True, {})


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("api-ready", "[-]etcd failed: reason withheld\nreadyz check failed"),
        ("api-ready", ""),
        ("api-objects", "nodes of kube-system could not be listed: kubectl's exit status is 124"),
    ],
)
def test_an_apiserver_that_does_not_answer_everything_is_not_ready(section, text):
    api = seen(with_section(section, text)).api

    assert not api.ready
    assert api.error


SERVICE = '{"apiVersion":"v1","kind":"Service","metadata":{"name":"kube-dns"}}'


def test_the_objects_of_the_manifests_are_read_whole():
    api = seen(with_section("manifests", f"pods\tkube-system\t2\t2\t2\t2\nobject\t{SERVICE}")).api

    assert api.objects == (
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns"}},
    )
    assert (api.given, api.unread, api.waiting) == (None, "", ())
    assert seen().api.objects is None


def test_of_the_operators_objects_the_names_are_read():
    text = (
        "object\tapps/v1\tDaemonSet\tkube-system\tcni\t\n"
        "object\tv1\tNamespace\t\tcni\t2026-12-01T00:00:00Z\n"
        # The kind was deleted: then its objects do not exist either. These lines come in any order.
        'error: resource mapping not found for name: "x" namespace: "" from "/etc/kubernetes/'
        'clusterctl/network-cni.yaml": no matches for kind "Pool" in version "example.org/v1"\n'
        "ensure CRDs are installed first\n"
        "Warning: v1 ComponentStatus is deprecated in v1.19+\n"
        'E1201 03:38:56.674853    8137 memcache.go:381] "Unhandled Error"\n'
        "kubectl's exit status is 1"
    )

    api = seen(with_section("given-manifests", text)).api

    assert [thing["kind"] for thing in api.given] == ["DaemonSet", "Namespace"]
    assert api.given[0]["metadata"] == {"namespace": "kube-system", "name": "cni"}
    assert api.given[1]["metadata"]["deletionTimestamp"] == "2026-12-01T00:00:00Z"
    assert api.unread == ""


@pytest.mark.parametrize("section", ["manifests", "given-manifests"])
def test_objects_that_could_not_be_read_say_why_and_the_apiserver_stays_ready(section):
    text = f"object\t{SERVICE}\nUnable to connect to the server: EOF\nkubectl's exit status is 1"

    api = seen(with_section(section, text)).api

    assert api.ready
    assert (api.objects, api.given) == (None, None)
    assert api.unread == "Unable to connect to the server: EOF; kubectl's exit status is 1"


@pytest.mark.parametrize(
    ("conditions", "containers", "why"),
    [
        ('[{"type":"Ready","status":"True"}]', "[]", None),
        (
            '[{"type":"Ready","status":"False"}]',
            '[{"state":{"running":{}}},{"state":{"waiting":{"reason":"ErrImagePull","message":"no"}}}]',
            "ErrImagePull: no",
        ),
        (
            '[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/2 nodes"}]',
            "",
            "Unschedulable: 0/2 nodes",
        ),
        (
            '[{"type":"Ready","status":"False"}]',
            '[{"state":{"waiting":{"reason":"ContainerCreating"}}}]',
            "ContainerCreating",
        ),
        ('[{"type":"Ready","status":"False"}]', "[]", "it is not ready"),
        ("", "", "it is not ready"),
    ],
)
def test_a_pod_that_is_not_ready_says_why(conditions, containers, why):
    line = f'pod\tkube-system\tcoredns-1\t{{"k8s-app":"kube-dns"}}\t{conditions}\t{containers}'

    api = seen(with_section("manifests", line)).api

    assert [pod.why for pod in api.waiting] == ([why] if why else [])
    assert all(pod.labels == {"k8s-app": "kube-dns"} for pod in api.waiting)
    assert api.unread == ""


def test_images_of_an_earlier_clusterctl_are_not_the_operators():
    coredns = images.refs()["coredns"]
    assert coredns.startswith("registry.k8s.io/coredns/coredns:")
    lines = (
        f"{coredns}@sha256:aa",
        "registry.k8s.io/coredns/coredns:v1.0.0@sha256:bb",
        "docker.io/library/busybox:1.0@sha256:cc",
        "example.org/team/app:1@sha256:dd",
    )

    assert seen(with_section("registry-images", "\n".join(lines))).user_images == {
        "docker.io/library/busybox:1.0": "sha256:cc",
        "example.org/team/app:1": "sha256:dd",
    }


def test_of_an_apiserver_that_is_not_ready_only_the_failing_checks_are_shown():
    answer = (
        'Error from server (InternalError): an error on the server ("[+]ping ok\\n[-]etcd failed: '
        'reason withheld\\n[+]log ok\\n[-]poststarthook/start-x failed\\nreadyz check failed") has '
        "prevented the request from succeeding"
    )
    assert seen(with_section("api-ready", answer)).api.error == "fails: etcd, poststarthook/start-x"


def running(*names):
    """What systemd says of units that run."""
    rest = "LoadState=loaded\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no"
    return "\n\n".join(f"Id={n}\nNames={n}\nActiveState=active\n{rest}" for n in names)


def test_installations_of_other_tools_are_foreign():
    output = with_section("foreign", "/etc/kubernetes/kubelet.conf\n/etc/rancher/k3s")
    output = with_section("units", running("docker.service", "etcd.service"), output)

    assert seen(without("record", output)).host.foreign == (
        Foreign("kubeadm", "/etc/kubernetes/kubelet.conf"),
        Foreign("k3s", "/etc/rancher/k3s"),
        Foreign("docker", "docker.service is running"),
        Foreign("etcd", "etcd.service is running"),
    )


def test_firewalls_of_others_that_are_at_work():
    assert seen().host.firewalls == ()
    assert seen(with_section("firewalls", "firewalld\nufw")).host.firewalls == ("firewalld", "ufw")


@pytest.mark.parametrize(
    ("said", "forbidden"),
    [
        (
            "haproxy_connect_any 0 0\nkeepalived_connect_any 1 1\nenforce 1",
            ("haproxy_connect_any",),
        ),
        ("haproxy_connect_any 0 1\nenforce 1", ("haproxy_connect_any",)),
        ("haproxy_connect_any 0 0\nenforce 0", ()),
        ("enforce 1", ()),  # a policy that does not know them
        ("", ()),
    ],
)
def test_selinux_forbids_what_is_off_while_it_enforces(said, forbidden):
    assert seen(with_section("selinux", said)).host.forbidden == forbidden


def test_recorded_installations_are_not_foreign():
    output = with_section("foreign", "/etc/kubernetes/kubelet.conf\n/etc/rancher/k3s")
    output = with_section("units", running("docker.service", "etcd.service"), output)

    assert seen(output).host.foreign == (
        Foreign("k3s", "/etc/rancher/k3s"),
        Foreign("docker", "docker.service is running"),
    )


def test_pod_routes_are_not_foreign_on_a_machine_of_the_cluster():
    routes = (
        "default via 10.77.0.1 dev eth0\n"
        "10.77.0.0/16 dev eth0 proto kernel\n"
        "10.244.0.0/24 dev cni0 proto kernel\n"
        "10.244.1.0/24 via 10.77.0.12 dev eth0 proto bird metric 32\n"
        "unreachable 10.244.2.0/24 proto bird\n"
        "blackhole 192.168.9.0/24\n"
        "172.16.0.9 via 10.77.0.1 dev eth0"
    )
    output = with_section("routes", routes)

    ours = ("10.77.0.0/16", "192.168.9.0/24", "172.16.0.9/32")
    pods = ("10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24")
    assert seen(output).host.routes == ours
    assert set(seen(without("record", output)).host.routes) == {*ours, *pods}


def test_routes_that_are_no_network_are_left_out():
    routes = (
        "default proto static\n"
        "\tnexthop via 10.77.0.1 dev eth0 weight 1\n"
        "\tnexthop via 10.78.0.1 dev eth1 weight 1\n"
        "10.77.0.0/16 dev eth0 proto kernel\n"
        "unreachable default metric 4278198272\n"
        "192.168.7.0/24 nhid 12 proto static\n"
        "something new"
    )

    assert seen(with_section("routes", routes)).host.routes == ("10.77.0.0/16", "192.168.7.0/24")


def test_only_a_machine_with_its_own_kernel_can_lack_a_module():
    output = with_section("features", "overlay\nnf_conntrack")

    assert seen(output).host.missing == ()
    assert seen(with_section("modules", "br_netfilter", output)).host.missing == ("nf_tables",)


RULES = "NF_TABLES_INET\nnft_masq\nnft_fib_ipv4"


def test_a_module_that_the_clusters_rules_need_may_be_missing():
    modules = with_section("modules", "nf_tables\nbr_netfilter\nnft_masq")

    assert seen(with_section("rules", RULES, modules)).host.missing == ("nft_fib_ipv4",)
    assert seen(with_section("rules", RULES)).host.missing == ()  # a container


def test_what_nft_says_of_the_kernel_counts_more_than_its_modules():
    output = with_section("rules", RULES, with_section("modules", "nf_tables\nnft_masq"))

    def missing(refused):
        return seen(with_section("refused-rules", refused, output)).host.missing

    assert missing("") == ()
    assert missing("NF_TABLES_INET\nnft_masq") == ("nft_masq", "NF_TABLES_INET")


def test_modules_of_the_running_kernel_that_an_upgrade_removed_are_missed():
    output = with_section("features", "overlay\nnf_tables\nnf_conntrack\nnft_masq")
    output = with_section("rules", RULES, with_section("modules-removed", "", output))
    own = re.sub(r"^container=.*\n", "", output, flags=re.M)

    assert (seen(own).host.outdated, seen(output).host.outdated) == (True, False)
    assert seen(own).host.missing == ("br_netfilter", "nft_fib_ipv4")
    assert seen(output).host.missing == ()


@pytest.mark.parametrize("section", ["begin", "end", "facts", "os-release", "disk", "addresses"])
def test_a_missing_section_is_named(section):
    seen_without = seen(without(section))

    assert not seen_without.reachable
    assert f"'{section}' is missing" in seen_without.error


def test_output_before_the_probe_is_ignored():
    assert seen("Welcome to m1!\nuid=7\n" + MASTER) == seen()


def test_an_unreachable_machine_has_only_the_reason():
    machine = unreachable("m1", "no route to host", "is it on?")

    assert (machine.error, machine.hint, machine.reachable) == (
        "no route to host",
        "is it on?",
        False,
    )


LINES = MASTER.split("\n")
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, len(LINES) - 1),
        st.one_of(
            st.just(None),
            st.text(max_size=40),
            st.sampled_from(
                [
                    *(
                        "@@ stat",
                        "@@ units",
                        "@@ api-objects",
                        "@@ manifests",
                        "@@ given-manifests",
                        "@@ facts",
                        "=",
                        "\t",
                        "[]",
                        "{}",
                    ),
                    *("memory=x", "capabilities=", "1.5.6", "node\tx\t[]\t{}\t{}\t[]\tv\t{}"),
                    *("0x", "9" * 5000, "[" * 5000, "tcp LISTEN 0 0 x:99999 y", "nan", "inf"),
                ]
            ),
        ),
    ),
    min_size=1,
    max_size=12,
)


@given(MUTATIONS, st.integers(0, len(MASTER)))
def test_a_damaged_answer_never_raises(mutations, length):
    lines = list(LINES)
    for index, text in mutations:
        lines[index] = "" if text is None else text
    for output in ("\n".join(lines), MASTER[:length]):
        machine = parse("m1", output, 0, 0)
        assert machine.reachable or machine.error


@given(st.text())
def test_garbage_is_an_error(output):
    assert parse("m1", output, 0, 0).error
