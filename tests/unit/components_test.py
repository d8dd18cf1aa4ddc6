"""What components want on machines: things that hold for all, and a few that are easily lost."""

import re
import subprocess
from pathlib import PurePosixPath
from string import ascii_lowercase

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from provision.artifacts import pins
from provision.desired import catalog
from provision.desired.components import containerd, etcd, node
from provision.desired.components.backup import INVENTORY
from provision.desired.digests import reads
from provision.desired.flags import flags
from provision.desired.packages import PACKAGES
from provision.model import paths
from provision.model.cluster import Role, Taint
from provision.model.settings.ec2 import Ec2
from provision.model.settings.network import HttpProxy, Networks
from provision.pki import table
from provision.pki.trust import STATE
from tests.world import DEFAULT, LAB, PLAIN, RHEL, cluster, machine, master, trust, worker

SEPARATE = cluster(master("m1"), machine("e1", Role.ETCD), worker("w1"))
ON_EC2 = cluster(master("m1"), source="ec2", ec2=Ec2(region="eu-central-1"))
ALL = [
    pytest.param(of, m, facts, id=f"{len(of.machines)} machines, {m.name}, {which}")
    for of in (DEFAULT, SEPARATE, ON_EC2, cluster(networks=Networks(proxy_mode="iptables")))
    for m in of.machines
    for which, facts in (("lab", LAB), ("plain", PLAIN), ("rhel", RHEL))
]
# There is no Linux without these; our own state is teardown's last.
SYSTEM = {
    paths.STATE,
    *("/", "/etc", "/opt", "/usr/local", "/usr/local/bin", "/var/lib", "/var/log"),
    *("/etc/systemd/system", "/etc/sysctl.d", "/etc/modules-load.d"),
}


def wanted(of, one, facts=LAB):
    return catalog.desired(of, one, trust(), facts)


def file(states, path):
    (content,) = {f.content for s in states.values() for f in s.files if f.path == path}
    return content.decode()


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_every_directory_of_what_is_put_there_is_made_or_the_systems(of, one, facts):
    states = wanted(of, one, facts).values()
    made = {d.path for s in states for d in s.directories}
    placed = {f.path for s in states for f in s.files}
    placed |= {
        path for s in states for leaf in s.leaves for path in (leaf.cert_path, leaf.key_path)
    }

    # Else teardown does not know of them, and leaves them behind.
    needed = {str(PurePosixPath(path).parent) for path in placed | made}
    assert needed - made - SYSTEM == set()


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_no_path_is_wanted_twice_unless_it_is_the_same(of, one, facts):
    states = wanted(of, one, facts).values()
    for kind in ("files", "directories", "binaries", "leaves"):
        things = [thing for s in states for thing in getattr(s, kind)]
        by_path = {getattr(t, "path", "") or t.cert_path: t for t in things}
        assert all(by_path[getattr(t, "path", "") or t.cert_path] == t for t in things)
    files = [f.path for s in states for f in s.files]
    assert len(files) == len(set(files))


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_every_file_that_a_unit_reads_exists(of, one, facts):
    states = wanted(of, one, facts)
    there = {f.path for s in states.values() for f in s.files}
    there |= {b.path for s in states.values() for b in s.binaries}
    there |= {leaf.cert_path for s in states.values() for leaf in s.leaves}

    for state in states.values():
        for unit in state.units:
            assert set(reads(unit, state)) <= there
            if unit.running:
                # A unit whose own file changes must be told.
                assert f"{paths.UNITS}/{unit.name}" in reads(unit, state)


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_the_probe_asks_for_every_unit_and_package(of, one, facts):
    states = wanted(of, one, facts).values()

    assert {u.name for s in states for u in s.units} <= set(catalog.UNITS)
    assert {p for s in states for p in s.packages} <= set(PACKAGES)


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_files_with_secrets_are_marked_secret_and_readable_only_by_their_owner(of, one, facts):
    secrets = [trust().encryption_key.encode(), trust().network_key.encode(), b"PRIVATE KEY"]

    for state in wanted(of, one, facts).values():
        for f in state.files:
            holds = any(secret in f.content for secret in secrets)
            # There are keys in STATE only while they are being replaced, in INVENTORY what its
            # author wrote.
            assert f.secret is (holds or f.path in {STATE, INVENTORY}), f.path
            if holds:
                assert f.mode & 0o007 == 0
                assert "content" not in repr(f)


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_authorities_keys_are_on_masters_only(of, one, facts):
    keys = {path for path, f in trust().files().items() if f.secret}
    there = {f.path for s in wanted(of, one, facts).values() for f in s.files}

    assert there & keys == (keys if one.is_master else set())


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_the_leaves_are_those_of_the_table(of, one, facts):
    leaves = {leaf for s in wanted(of, one, facts).values() for leaf in s.leaves}

    assert leaves == set(table.node_leaves(of, one))


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_programs_of_health_and_cleanup_are_shell(of, one, facts):
    states = wanted(of, one, facts).values()
    programs = "".join(f"{{ {p}\n}}\n" for s in states for p in (s.health, s.cleanup) if p)

    subprocess.run(["sh", "-n"], input=programs, text=True, check=True)
    assert all(state.health for state in states if state.units)


@pytest.mark.parametrize(("of", "one", "facts"), ALL)
def test_yaml_is_yaml_and_ends_with_a_newline(of, one, facts):
    for state in wanted(of, one, facts).values():
        for f in state.files:
            assert not f.content or f.content.endswith(b"\n"), f.path
            if f.path.endswith((".yaml", ".yml", "/admin.conf")):
                documents = list(yaml.safe_load_all(f.content))
                assert all(isinstance(d, dict) for d in documents), f.path


def test_every_artifact_is_in_the_catalogue():
    known = {pin.name for pin in pins(DEFAULT.kubernetes)}

    assert set(catalog.artifacts_of(DEFAULT, trust())) <= known


def test_desired_is_a_function_of_its_arguments():
    for one in DEFAULT.machines:
        first = wanted(DEFAULT, one)
        catalog._desired.cache_clear()
        assert wanted(DEFAULT, one) == first


def test_a_separate_member_has_etcd_and_nothing_of_kubernetes():
    assert set(wanted(SEPARATE, SEPARATE.machine("e1"))) == {"host", "certificates", "etcd"}


def test_components_by_name():
    assert catalog.component("etcd") is catalog.ETCD
    with pytest.raises(KeyError):
        catalog.component("docker")


def test_an_apiserver_uses_its_own_member_or_with_separate_etcd_all():
    separate = cluster(
        machine("m1", Role.MASTER), machine("e1", Role.ETCD), machine("e2", Role.ETCD)
    )
    unit = f"{paths.UNITS}/kube-apiserver.service"

    own = file(wanted(DEFAULT, DEFAULT.machine("m2")), unit)
    others = file(wanted(separate, separate.machine("m1")), unit)

    assert "--etcd-servers=https://10.77.0.12:2379 \\" in own
    assert "--etcd-servers=https://10.77.0.31:2379,https://10.77.0.32:2379 \\" in others


def test_extra_arguments_win():
    of = cluster(extra_args={"kube-apiserver": {"audit-log-maxage": "7", "v": "2"}})
    text = file(wanted(of, of.machine("m1")), f"{paths.UNITS}/kube-apiserver.service")

    assert "--audit-log-maxage=7" in text
    assert "--audit-log-maxage=30" not in text
    assert "--v=2" in text


names = st.builds(  # [a-z][a-z-]{0,8}
    str.__add__, st.sampled_from(ascii_lowercase), st.text(f"{ascii_lowercase}-", max_size=8)
)
values = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=12)


@given(ours=st.dictionaries(names, values), extra=st.dictionaries(names, values))
def test_flags_are_sorted_merged_and_survive_systemds_expansion(ours, extra):
    given_back = [flag.replace("%%", "%").replace("$$", "$") for flag in flags(ours, extra)]

    assert given_back == [f"--{k}={v}" for k, v in sorted({**ours, **extra}.items())]
    for flag in flags(ours, extra):
        assert "%" not in flag.replace("%%", "")
        assert "$" not in flag.replace("$$", "")


def test_packages_have_the_distributions_names():
    assert LAB.distribution.packages("conntrack", "zstd") == ("conntrack", "zstd")
    assert RHEL.distribution.packages("conntrack", "zstd") == ("conntrack-tools", "zstd")


def test_the_join_file_names_all_members_and_is_an_environment_file():
    joined = etcd.join_file("new", {m.name: etcd.peer_url(m) for m in DEFAULT.etcd_members})

    assert joined.path == paths.ETCD_JOIN
    members, state = joined.content.decode().splitlines()
    assert members == "ETCD_INITIAL_CLUSTER=" + ",".join(
        f"{name}=https://10.77.0.1{name[1]}:2380" for name in ("m1", "m2", "m3")
    )
    assert state == "ETCD_INITIAL_CLUSTER_STATE=new"


def test_masters_are_reserved_unless_they_are_workers_or_schedulable():
    both = machine("m1", Role.MASTER, Role.WORKER, Role.ETCD, taints=(Taint(key="gpu"),))
    reserved = Taint(key="node-role.kubernetes.io/control-plane")

    assert node.taints(DEFAULT, DEFAULT.machine("m1")) == (reserved,)
    assert node.taints(DEFAULT, DEFAULT.machine("w1")) == ()
    assert node.taints(cluster(both), both) == (Taint(key="gpu"),)
    assert node.taints(cluster(masters_schedulable=True), DEFAULT.machine("m1")) == ()


def test_labels_are_the_inventorys_and_the_roles():
    both = machine("m1", Role.MASTER, Role.WORKER, labels={"zone": "a"})

    assert node.labels(cluster(both), both) == {
        "zone": "a",
        "node-role.kubernetes.io/control-plane": "",
        "node-role.kubernetes.io/worker": "",
    }


def test_the_proxy_is_for_containerd_and_not_for_the_clusters_own_addresses():
    of = cluster(proxy=HttpProxy(https="http://proxy:3128", no_proxy=("corp.example",)))
    text = file(wanted(of, of.machine("w1")), containerd.ENVIRONMENT)

    assert "HTTPS_PROXY=http://proxy:3128\n" in text
    assert "10.77.0.11" in text
    assert "10.96.0.0/16" in text
    assert "corp.example" in text


def test_a_password_of_the_proxy_is_in_a_closed_file_and_in_no_unit():
    of = cluster(proxy=HttpProxy(http="http://me:hunter2@proxy:3128"))
    files = {f.path: f for f in wanted(of, of.machine("w1"))["containerd"].files}
    unit = files[f"{paths.UNITS}/containerd.service"].content.decode()
    (holder,) = (f for f in files.values() if b"hunter2" in f.content)

    assert (holder.path, holder.mode, holder.secret) == (containerd.ENVIRONMENT, 0o600, True)
    assert f"EnvironmentFile={containerd.ENVIRONMENT}" in unit
    none = file(wanted(DEFAULT, DEFAULT.machine("w1")), f"{paths.UNITS}/containerd.service")
    assert "Environment" not in none


def test_mirrors_are_tried_after_the_masters_and_a_custom_registry_has_a_file():
    of = cluster(registry_mirrors={"registry.corp": ("mirror.corp",), "quay.io": ()})
    states = wanted(of, of.machine("w1"))

    text = file(states, "/etc/containerd/certs.d/registry.corp/hosts.toml")
    assert text.index("https://127.0.0.1:5000") < text.index("https://mirror.corp")
    assert text.startswith("#")
    assert "mirror.corp" not in file(states, "/etc/containerd/certs.d/quay.io/hosts.toml")


def test_keepalived_prefers_the_first_master_and_peers_are_the_others():
    texts = [file(wanted(DEFAULT, m), f"{paths.CONFIG}/keepalived.conf") for m in DEFAULT.masters]

    for priority, text in zip((200, 199, 198), texts, strict=True):
        assert f"priority {priority}" in text
    assert "10.77.0.100" in texts[0]
    assert all("10.77.0.11" in text for text in texts)
    without = cluster(api={})
    assert "keepalived" not in wanted(without, without.machine("m1"))


def test_kube_proxys_flags_are_fields_of_its_file_and_only_logging_stays_a_flag():
    extra = {"nodeport-addresses": "10.0.0.0/8,primary", "conntrack-min": "7", "v": "4"}
    extra |= {
        "iptables-sync-period": "1m",
        "masquerade-all": "true",
        "feature-gates": "A=true,B=false",
    }
    of = cluster(extra_args={"kube-proxy": extra})
    states = wanted(of, of.machine("w1"))

    config = yaml.safe_load(file(states, node.PROXY_CONFIG))
    assert config["nodePortAddresses"] == ["10.0.0.0/8", "primary"]
    assert config["conntrack"] == {"maxPerCore": 0, "min": 7}
    assert config["nftables"] == {"syncPeriod": "1m", "masqueradeAll": True}
    assert config["featureGates"] == {"A": True, "B": False}
    assert config["clientConnection"] == {"kubeconfig": node.KUBECONFIG}
    unit = file(states, f"{paths.UNITS}/kube-proxy.service")
    assert re.findall(r"--([a-z-]+)", unit.split("ExecStart=")[1]) == ["config", "v"]


def test_masters_serve_node_ports_at_the_virtual_address():
    def addresses(of, name):
        config = yaml.safe_load(file(wanted(of, of.machine(name)), node.PROXY_CONFIG))
        return config.get("nodePortAddresses")

    assert addresses(DEFAULT, "m1") == ["0.0.0.0/0"]
    assert addresses(DEFAULT, "w1") is None
    assert addresses(cluster(api={}), "m1") is None
    asked = cluster(extra_args={"kube-proxy": {"nodeport-addresses": "primary"}})
    assert addresses(asked, "m1") == ["primary"]


@pytest.mark.parametrize(
    ("prefix", "limit"), [(24, None), (25, None), (26, 61), (27, 29), (28, 13)]
)
def test_a_kubelet_accepts_as_many_pods_as_its_node_has_addresses(prefix, limit):
    of = cluster(networks=Networks(node_prefix=prefix))
    config = yaml.safe_load(file(wanted(of, of.machine("w1")), node.CONFIG))
    assert config.get("maxPods") == limit
    custom = cluster(networks=Networks(node_prefix=prefix, plugin="custom"))
    assert "maxPods" not in file(wanted(custom, custom.machine("w1")), node.CONFIG)


@pytest.mark.parametrize(
    ("of", "cut"), [(cluster(master("m1"), worker("w1")), False), (DEFAULT, True)]
)
def test_sessions_leave_an_apiserver_that_is_not_ready_only_for_another_one(of, cut):
    config = file(wanted(of, of.machine("w1")), "/etc/clusterctl/haproxy.cfg")

    assert ("on-marked-down shutdown-sessions" in config) is cut
