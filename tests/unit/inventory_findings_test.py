"""What a bad inventory file is told: the field, the value, what is allowed."""

from pathlib import Path
from textwrap import dedent

import pytest

from provision.inventory import read
from provision.model.errors import Finding, InventoryError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kYg7Oq4Nn3b8m2uFZ1eYpF9w7yq2nq7m4T1m0zYbR"


@pytest.fixture
def refuse(tmp_path):
    """Write a file; give the findings of its refusal."""

    def write(text: str) -> tuple[Finding, ...]:
        path = tmp_path / "inventory.py"
        path.write_text(dedent(text))
        with pytest.raises(InventoryError) as caught:
            read(path)
        assert caught.value.exit_code == 3
        return caught.value.findings

    return write


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        InventoryError, match=r"nowhere\.py: there is no such file.*clusterctl init"
    ):
        read(tmp_path / "nowhere.py")


def test_a_directory_and_a_file_that_is_not_text(tmp_path):
    with pytest.raises(InventoryError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "binary.py").write_bytes(b"\x7fELF\xff\x00")
    with pytest.raises(InventoryError, match="is not a Python file"):
        read(tmp_path / "binary.py")


def test_a_syntax_error_is_shown_with_line_and_text(refuse):
    (finding,) = refuse('cluster = {"name": "demo"}\nmasters = ["m1" "m2"\nworkers = []\n')
    assert finding.where.endswith("inventory.py:2")
    assert 'masters = ["m1" "m2"' in finding.what


def test_a_syntax_error_in_a_line_with_a_password_does_not_show_it(refuse):
    (finding,) = refuse('masters = [("m1", {"ssh_password": "hunter2}]\n')
    assert "hunter2" not in str(finding)
    assert finding.where.endswith("inventory.py:1")


def test_an_exception_while_executing_is_shown_with_the_files_line(refuse):
    (finding,) = refuse("import json\n\njson.loads('{')\nmasters = ['m1']\n")
    assert finding.where.endswith("inventory.py:3")
    assert finding.what.startswith("JSONDecodeError")


@pytest.mark.parametrize("line", ["raise SystemExit(0)", "exit(1)", "1/0", "undefined"])
def test_whatever_the_file_raises_is_an_inventory_error(refuse, line):
    (finding,) = refuse(line)
    assert finding.where.endswith("inventory.py:1")


def test_all_mistakes_are_reported_at_once(refuse):
    findings = refuse(
        """
        cluster = {"name": "My Cluster", "kubernets": "1.36.3", "api": {"vip": "here"},
                   "networks": {"pods": "10.0.0.0/16", "services": "10.0.0.0/16"}}
        masters = [("M1", {}), ("m2", {"ssh_prot": 22, "labels": {"-": "x"}}), "m2", 7]
        worker = ["w1"]
        """
    )
    assert {f.where for f in findings} >= {
        "worker",
        "cluster.name",
        "cluster.kubernets",
        "cluster.api.vip",
        "cluster.networks.pods",
        "masters",
        "masters.m2.ssh_prot",
        "masters.m2.labels.-",
    }
    assert sum(f.where == "masters" for f in findings) == 3


CLUSTER = [
    ('{}', "cluster.name", "is missing", ""),
    ('"demo"', "cluster", "'demo', not a dict", "cluster = {"),
    ('{"name": "demo", "kubernetes": "v1.36.3"}', "cluster.kubernetes", "begins with v", "1.36.3"),
    ('{"name": "demo", "kubernetes": "1.20.0"}', "cluster.kubernetes", "'1.20.0'", "1.35.4"),
    ('{"name": "demo", "kubernetes": 1.36}', "cluster.kubernetes", "1.36", 'write "1.36"'),
    ('{"name": "demo", "machines": "labb"}', "cluster.machines", "'labb'", "'lab'?"),
    ('{"name": "demo", "source": "lab"}', "cluster.source", "unknown field",
     "it is a field of 'artifacts'"),
    ('{"name": "demo", "masters_schedulable": 3}', "cluster.masters_schedulable", "3", "True or False"),
    ('{"name": "demo", "zzz": 1}', "cluster.zzz", "unknown field", "known: name, machines"),
    ('{"name": "demo", "vip": "192.0.2.10"}', "cluster.vip", "unknown field",
     """it is a field of 'api': "api": {"vip": ...}"""),
    ('{"name": "demo", "firewall": {"allow": ["9100/tcp"]}}', "cluster.firewall.allow.0",
     "'9100/tcp' is not allowed", "it must be tcp/PORT, udp/PORT or tcp/FIRST-LAST"),
    ('{"name": "demo", "pod_security": {"exempt": ["Rook"]}}', "cluster.pod_security.exempt.0",
     "'Rook' is not allowed", "it must be a namespace's name"),
    ('{"name": "demo", "certificates": {"leaf_days": 0}}', "cluster.certificates.leaf_days", "0",
     "more than 0 and at most 3650"),
    ('{"name": "demo", "api": {"name": []}}', "cluster.api.name", "a list",
     "a text, such as 'api.example.org'"),
    ('{"name": "demo", "ec2": {"zones": "a"}}', "cluster.ec2.zones", "'a'",
     "a list, such as ['eu-central-1a', "),
    ('{"name": "demo", "networks": ["10.0.0.0/8"]}', "cluster.networks", "a list", "a dict"),
    ('{"name": "demo", "networks": {"pod": ""}}', "cluster.networks.pod", "unknown", "'pods'?"),
    ('{"name": "demo", "networks": {"pods": "10.1.2.3/16"}}', "cluster.networks.pods",
     "'10.1.2.3/16'", "'10.1.0.0/16'?"),
    ('{"name": "demo", "networks": {"pods": "10.96.0.0/12"}}', "cluster.networks.pods",
     "overlaps", "two networks"),
    ('{"name": "demo", "networks": {"services": "10.96.0.0/25"}}', "cluster.networks.services",
     "wrong size", "/12 to /24"),
    ('{"name": "demo", "networks": {"services": "11.0.0.0/8"}}', "cluster.networks.services",
     "wrong size", "/12 to /24"),
    ('{"name": "demo", "networks": {"node_prefix": 12}}', "cluster.networks.node_prefix",
     "12", "16 to 28"),
    ('{"name": "demo", "networks": {"node_prefix": 10**30}}', "cluster.networks.node_prefix",
     "a huge number", "16 to 28"),
    ('{"name": "demo", "networks": {"pods": "10.244.0.0/24"}}', "cluster.networks.node_prefix",
     "gives 1 parts", "2 nodes"),
    ('{"name": "demo", "networks": {"pods": "192.0.2.0/24", "node_prefix": 26}}',
     "cluster.networks.pods", "m1 (192.0.2.1)", "nothing else uses"),
    ('{"name": "demo", "networks": {"domain": "cluster local"}}', "cluster.networks.domain", "", ""),
    ('{"name": "demo", "networks": {"mtu": 100}}', "cluster.networks.mtu", "100", "1280"),
    ('{"name": "demo", "networks": {"plugin": "calico"}}', "cluster.networks.plugin", "'calico'",
     "routed, custom"),
    ('{"name": "demo", "networks": {"plugin": "custom"}}', "cluster.networks.manifests", "has no manifests", "calico.yaml"),
    ('{"name": "demo", "networks": {"manifests": ["/nowhere.yaml"]}}', "cluster.networks.manifests",
     "/nowhere.yaml", ""),
    ('{"name": "demo", "networks": {"manifest_texts": ["x"]}}', "cluster.networks.manifest_texts",
     "unknown", "manifests"),
    ('{"name": "demo", "backup": {"ssh_key_text": "x"}}', "cluster.backup.ssh_key_text",
     "unknown", "ssh_key"),
    ('{"name": "demo", "inventory_text": "x"}', "cluster.inventory_text", "unknown", ""),
    ('{"name": "demo", "backup": {"hours": 0}}', "cluster.backup.hours", "0", ""),
    ('{"name": "demo", "backup": {"recipients": ["age1x"]}}', "cluster.backup.recipients",
     "'age1x'", "age-keygen"),
    ('{"name": "demo", "backup": {"to": "/srv"}}', "cluster.backup.to", "'/srv'", "ssh://"),
    ('{"name": "demo", "backup": {"to": "ssh://-x@h/srv"}}', "cluster.backup.to", "@h/srv", "ssh://"),
    ('{"name": "demo", "backup": {"to": "s3://b/$(id)"}}', "cluster.backup.to", "$(id)", "s3://"),
    ('{"name": "demo", "backup": {"to": "ssh://a@h/srv"}}', "cluster.backup.ssh_key", "missing", ""),
    ('{"name": "demo", "backup": {"to": "ssh://a@h/srv"}}', "cluster.backup.ssh_host_key",
     "missing", ""),
    ('{"name": "demo", "backup": {"ssh_key": "/nowhere"}}', "cluster.backup.ssh_key",
     "/nowhere", ""),
    ('{"name": "demo", "backup": {"ssh_host_key": "ssh-rsa x"}}', "cluster.backup.ssh_host_key",
     "not a public host key", "known_hosts"),
    ('{"name": "demo", "backup": {"to": "s3://bucket"}}', "cluster.backup.s3_access_key",
     "missing", ""),
    ('{"name": "demo", "backup": {"s3_endpoint": "http://h/`id`"}}', "cluster.backup.s3_endpoint",
     "`id`", "http"),
    ('{"name": "demo", "backup": {"s3_region": "a b"}}', "cluster.backup.s3_region", "'a b'", ""),
    ('{"name": "demo", "backup": {"s3_secret_key": "a\\"b"}}', "cluster.backup.s3_secret_key",
     "characters", ""),
    ('{"name": "demo", "api": {"vip": "auto"}}', "cluster.api.vip", "'auto'", "free address"),
    ('{"name": "demo", "api": {"vip": "192.0.2.1"}}', "cluster.api.vip", "address of m1", "free"),
    ('{"name": "demo", "api": {"vip": "10.244.0.9"}}', "cluster.networks.pods", "10.244.0.9", ""),
    ('{"name": "demo", "api": {"vip": "127.0.0.1"}}', "cluster.api.vip", "127.0.0.1", "free"),
    ('{"name": "demo", "api": {"name": "https://x"}}', "cluster.api.name", "'https://x'", ""),
    ('{"name": "demo", "api": {"port": 443}}', "cluster.api.port", "443", "1024 to 65535"),
    ('{"name": "demo", "api": {"port": 8443}}', "cluster.api.port", "6443", "load balancer"),
    ('{"name": "demo", "artifacts": {"source": "mirror"}}', "cluster.artifacts.mirror", "missing", ""),
    ('{"name": "demo", "artifacts": {"source": "mirror", "mirror": "files"}}',
     "cluster.artifacts.mirror", "'files'", "http"),
    ('{"name": "demo", "artifacts": {"source": "bundle", "bundle": "b.tar"}}',
     "cluster.artifacts.bundle", "b.tar", "artifacts bundle"),
    ('{"name": "demo", "artifacts": {"mirror": "http://files"}}', "cluster.artifacts.mirror",
     "'auto'", "mirror"),
    ('{"name": "demo", "extra_args": {"kube-apisever": {}}}', "cluster.extra_args.kube-apisever",
     "'kube-apisever'", "'kube-apiserver'?"),
    ('{"name": "demo", "extra_args": {"kubelet": {"v": 4}}}', "cluster.extra_args.kubelet.v", "4",
     'write "4"'),
    ('{"name": "demo", "extra_args": {"kubelet": {"--v": "4"}}}', "cluster.extra_args.kubelet.--v",
     "begins with a dash", "'v'"),
    ('{"name": "demo", "extra_args": {"kube-apiserver": {"anonymous-auth": "true"}}}',
     "cluster.extra_args.kube-apiserver.anonymous-auth", "clusterctl sets this flag", "every client needs"),
    ('{"name": "demo", "extra_args": {"etcd": {"--initial-cluster": "x"}}}',
     "cluster.extra_args.etcd.--initial-cluster", "clusterctl sets this flag", "quorum"),
    ('{"name": "demo", "proxy": {"http": "proxy:3128"}}', "cluster.proxy.http", "'proxy:3128'", "http"),
    ('{"name": "demo", "registry_mirrors": {"docker.io": ["mirror"]}}',
     "cluster.registry_mirrors.docker.io", "'mirror'", "http"),
    ('{"name": "demo", "certificates": {"authority": "mine"}}', "cluster.certificates.authority",
     "'mine'", "cluster, external"),
    ('{"name": "demo", "certificates": {"authority": "external", "leaf_days": 9}}',
     "cluster.certificates.leaf_days", "the external authority decides", "leave it out"),
    ('{"name": "d", "machines": "ec2", "ec2": {"group": 2}, "certificates": {"authority": "external"}}',
     "cluster.ec2.group", "cannot get certificates", "write each worker"),
    ('{"name": "demo", "machines": "ec2", "ec2": {"ssh": "ssm"}}', "cluster.ec2.image",
     "'debian-12' has no agent of the Session Manager", "ubuntu-24.04 or amazon-linux-2023"),
    ('{"name": "demo", "lab": {"image": "bar"}}', "cluster.lab.image", "'bar'", "'bare'?"),
]  # fmt: skip


@pytest.mark.parametrize(("cluster", "where", "what", "hint"), CLUSTER)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(
    refuse, cluster, where, what, hint
):
    findings = refuse(
        f"""
        cluster = {cluster}
        masters = [("m1", {{"ssh_hostname": "192.0.2.1"}})]
        workers = ["w1"]
        """
    )
    found = [f for f in findings if f.where == where]
    assert found, findings
    assert any(what in f.what and hint in f.hint for f in found), found


GROUPS = [
    ('workers = ["w1"]', "masters", "is missing", "at least one"),
    ("masters = []", "masters", "no machines", "at least one"),
    ('masters = ["m1"]\netcd = []', "etcd", "no machines", "leave the group out"),
    ('masters = "m1"', "masters", "'m1' is not a group", "masters = ["),
    ('masters = ("m1", "m2")', "masters", "a tuple is not a group", "masters = ["),
    ('masters = (["m1"], "root")', "masters", "'root', not a dict", "ssh_user"),
    ('masters = [("m1", "root")]', "masters.m1", "'root', not a dict", "ssh_user"),
    ('masters = ["m1", "m1"]', "masters", "'m1' is in the group twice", "once"),
    ('masters = ["192.0.2.1"]', "masters", "is an address", "ssh_hostname"),
    ('masters = ["-m1"]', "masters", "'-m1' is not a hostname", "lower-case"),
    ('masters = ["m_1"]', "masters", "'m_1' is not a hostname", "lower-case"),
    ('masters = ["m1..x"]', "masters", "'m1..x' is not a hostname", "lower-case"),
    (f'masters = ["{"m" * 53}"]', "masters", "has 53 characters", "52 at most"),
    ('masters = ["@local"]', "masters", "'@local' is not a hostname", "lower-case"),
    ('masters = ["m1", "m2"]', "masters", "2 etcd members", "force_even_etcd"),
    ('masters = ["m1"]\netcd = ["e1", "e2"]', "etcd", "2 etcd members", "1 or 3"),
    ('master = ["m1"]', "master", "unknown group", "'masters'?"),
    ('masters = ["m1"]\nworker = ["w1"]', "worker", "unknown group", "'workers'?"),
    ('masters = ["m1"]\nworkers = (["w1"], {"ssh_hosname": "x"})', "workers.ssh_hosname",
     "unknown field", "'ssh_hostname'?"),
    ('masters = [("m1", {"ssh_port": 0})]', "masters.m1.ssh_port", "0", "1 to 65535"),
    ('masters = [("m1", {"ssh_hostname": "-oProxyCommand=x"})]', "masters.m1.ssh_hostname", "", ""),
    ('masters = [("m1", {"ssh_user": "-l root"})]', "masters.m1.ssh_user", "not a name", ""),
    ('masters = [("m1", {"ssh_key": "/nowhere"})]', "masters.m1.ssh_key", "/nowhere", ""),
    ('masters = [("m1", {"ssh_host_key": "ssh-rsa AAAA"})]', "masters.m1.ssh_host_key", "", "TYPE"),
    ('masters = [("m1", {"ssh_strict_host_key_checking": "no"})]',
     "masters.m1.ssh_strict_host_key_checking", "'no'", "yes"),
    ('masters = [("m1", {"ssh_hostname": "127.0.0.1"})]', "masters.m1.ssh_hostname", "127.0.0.1",
     "address"),
    ('masters = [("m1", {"address": "192.0.2.1"})]\nworkers = [("w1", {"address": "192.0.2.1"})]',
     "w1.address", "address of m1 too", "its own"),
    ('masters = [("m1", {"labels": ["a"]})]', "masters.m1.labels", "a list", "a dict"),
    ('masters = [("m1", {"labels": {"a": "b c"}})]', "masters.m1.labels.a", "'b c'", "letters"),
    ('masters = [("m1", {"labels": {"node-role.kubernetes.io/db": ""}})]',
     "masters.m1.labels.node-role.kubernetes.io/db", "clusterctl sets the label", "masters_schedulable"),
    ('masters = [("m1", {"taints": ["x"]})]', "masters.m1.taints", "'x'", "key=value:NoSchedule"),
    ('masters = [("m1", {"taints": ["x:NoShedule"]})]', "masters.m1.taints", "'NoShedule'",
     "'NoSchedule'?"),
    ('masters = [("m1", {"taints": "x:NoSchedule"})]', "masters.m1.taints", "", "a list"),
    ('masters = [("m1", {"x": print})]', "masters.m1.x", "builtin_function", "text, numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("groups", "where", "what", "hint"), GROUPS)
def test_a_wrong_machine_is_named_with_its_value_and_what_is_allowed(
    refuse, groups, where, what, hint
):
    findings = refuse('cluster = {"name": "demo"}\n' + groups)
    found = [f for f in findings if f.where == where]
    assert found, findings
    assert any(what in f.what and hint in f.hint for f in found), found


def test_the_lab_takes_no_addresses_and_no_keys(refuse):
    findings = refuse(
        """
        cluster = {"name": "demo", "machines": "lab"}
        masters = [("m1", {"ssh_user": "me", "_sudo": True, "labels": {"a": "b"}})]
        """
    )
    assert {f.where for f in findings} == {"masters.m1.ssh_user", "masters.m1._sudo"}


def test_a_cluster_dict_by_another_name_is_recognised(refuse):
    findings = refuse('clusters = {"name": "demo"}\nmasters = ["m1"]')
    assert ("clusters", "did you mean 'cluster'?") in [(f.where, f.hint) for f in findings]


def test_no_password_is_in_any_message(refuse):
    findings = refuse(
        """
        cluster = {"name": "demo", "proxy": {"http": "ftp://me:hunter2@proxy"},
                   "artifacts": {"source": "mirror", "mirror": "ftp://me:hunter2@mirror"},
                   "registry_mirrors": {"docker.io": ["ftp://me:hunter2@mirror"]}}
        masters = [("m1", {"ssh_password": ["hunter2"], "ssh_key_password": {"hunter2": 1},
                           "_sudo_password": 42424242, "ssh_pasword": "hunter2"})]
        """
    )
    text = "\n".join(map(str, findings))
    assert len(findings) == 7
    assert "hunter2" not in text
    assert "42424242" not in text


def test_a_mirror_with_a_password_is_refused_without_showing_it(refuse):
    findings = refuse(
        """
        cluster = {"name": "demo",
                   "artifacts": {"source": "mirror", "mirror": "https://me:hunter2@mirror"},
                   "registry_mirrors": {"docker.io": ["https://me:hunter2@mirror"]}}
        masters = ["m1"]
        """
    )
    where = ["cluster.artifacts.mirror", "cluster.registry_mirrors.docker.io"]
    assert [f.where for f in findings] == where
    assert all("password" in f.what for f in findings)
    assert "hunter2" not in "\n".join(map(str, findings))


def test_a_key_that_others_can_read_is_refused_with_the_chmod_to_type(refuse, tmp_path):
    key = tmp_path / "key"
    key.touch(mode=0o644)
    findings = refuse(
        f"""
        cluster = {{"name": "demo"}}
        masters = [("m1", {{"ssh_key": "{key}"}})]
        """
    )
    assert [(f.where, f.hint) for f in findings] == [("masters.m1.ssh_key", f"chmod 600 {key}")]
    assert "0644" in findings[0].what


def test_a_good_host_key_is_taken(tmp_path: Path):
    path = tmp_path / "inventory.py"
    path.write_text(
        f'cluster = {{"name": "demo"}}\nmasters = [("m1", {{"ssh_host_key": "{KEY}"}})]\n'
    )
    assert read(path).hosts[0].ssh["host_key"] == KEY


@pytest.mark.parametrize(
    ("network", "what"),
    [
        ("10.96.4.0/24", "overlaps cluster.networks.services"),
        ("10.244.0.0/16", "overlaps cluster.networks.pods"),
        ("192.168.56.0/26", "cannot be the machines' network"),
        ("8.8.8.0/24", "cannot be the machines' network"),
    ],
)
def test_a_network_that_cannot_be_the_machines(refuse, network, what):
    findings = refuse(
        f'cluster = {{"name": "demo", "machines": "vagrant", "vagrant": {{"network": "{network}"}}}}\n'
        'masters = ["m1"]\n'
    )
    assert [f.where for f in findings] == ["cluster.vagrant.network"]
    assert what in findings[0].what


def test_vagrant_takes_no_addresses_and_no_keys(refuse):
    findings = refuse(
        """
        cluster = {"name": "demo", "machines": "vagrant"}
        masters = [("m1", {"address": "192.168.56.11"})]
        """
    )
    assert [(f.where, f.what) for f in findings] == [
        ("masters.m1.address", "is not for machines that Vagrant makes")
    ]


@pytest.mark.parametrize(
    "state", ["s3:/x", "s3://Capital/x", "https://bucket/x", "s3://b", "s3://bucket/"]
)
def test_a_place_of_shared_state_is_one_in_s3(refuse, state):
    cluster = {"name": "demo", "state": state}

    (finding,) = refuse(f"cluster = {cluster}\nmasters = ['m1']\n")

    assert finding.where == "cluster.state"
    assert finding.hint.startswith("it must be s3://BUCKET/PREFIX; the bucket has 3 to 63 ")


@pytest.mark.parametrize("value", [(False, None), ("10.0.0.0", 16), 5, True, ["10.0.0.0/16"]])
def test_a_network_is_text(refuse, value):
    settings = {"networks": {"pods": value}, "firewall": {"ssh_from": [value]}}
    findings = refuse(f"cluster = {settings!r}\nmasters = ['m1']\n")
    (pods,) = (f for f in findings if f.where == "cluster.networks.pods")
    assert "it must be" in f"{pods.what} {pods.hint}"
