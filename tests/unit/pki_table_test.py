"""`openssl verify` is the judge of every certificate of the table."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from provision.model import paths
from provision.model.cluster import Cluster, Machine, Role, Ssh
from provision.model.settings.network import Api
from provision.pki import table
from provision.pki.authority import Authority
from provision.pki.leaf import Leaf, Usage, issue
from provision.pki.trust import Trust

MASTER = frozenset({Role.MASTER, Role.ETCD})
WORKER = frozenset({Role.WORKER})
PURPOSES = {Usage.SERVER: "sslserver", Usage.CLIENT: "sslclient"}


def machine(name: str, address: str, roles: frozenset[Role]) -> Machine:
    return Machine(name=name, address=IPv4Address(address), roles=roles, ssh=Ssh(hostname=address))


CLUSTER = Cluster(
    name="ha",
    machines=(
        machine("master1", "10.0.0.11", MASTER),
        machine("master2", "10.0.0.12", MASTER),
        machine("master3", "10.0.0.13", MASTER),
        machine("worker1", "10.0.0.21", WORKER),
        machine("worker2.example.org", "10.0.0.22", WORKER),
    ),
    api=Api(name="api.example.org", vip=IPv4Address("10.0.0.100")),
    inventory=Path("/nowhere/ha.py"),
)


@dataclass(frozen=True)
class Files:
    """The table of CLUSTER, issued and written down."""

    root: Path
    leaves: tuple[tuple[Machine, Leaf], ...]

    def certificate(self, machine: Machine, leaf: Leaf) -> Path:
        return self.root / machine.name / leaf.name

    def authority(self, authority: Authority) -> Path:
        return self.root / authority

    def accepted(
        self, machine: Machine, leaf: Leaf, *options: str, authority: Authority | None = None
    ) -> bool:
        ca = self.authority(authority or leaf.authority)
        run = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", ca, *options,
             self.certificate(machine, leaf)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode in (0, 2), run.stderr
        return run.returncode == 0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    now = datetime.now(UTC)
    trust = Trust.create("ha", now)
    root = tmp_path_factory.mktemp("pki")
    files = Files(
        root, tuple((m, leaf) for m in CLUSTER.machines for leaf in table.node_leaves(CLUSTER, m))
    )
    for authority in Authority:
        files.authority(authority).write_bytes(trust.authority(authority).certificate)
    for m, leaf in files.leaves:
        files.certificate(m, leaf).parent.mkdir(exist_ok=True)
        files.certificate(m, leaf).write_bytes(issue(leaf, trust, now).certificate)
    return files


def test_every_certificate_serves_exactly_its_purposes(files: Files) -> None:
    for m, leaf in files.leaves:
        for usage, purpose in PURPOSES.items():
            expected = usage in leaf.usages
            assert files.accepted(m, leaf, "-purpose", purpose) is expected, (m.name, leaf.name)


def test_every_certificate_belongs_to_one_authority_only(files: Files) -> None:
    for m, leaf in files.leaves:
        for authority in Authority:
            expected = authority is leaf.authority
            assert files.accepted(m, leaf, authority=authority) is expected, (m.name, leaf.name)


def test_every_server_certificate_holds_all_its_names_and_no_other_machines(files: Files) -> None:
    for m, leaf in files.leaves:
        for name in leaf.dns:
            assert files.accepted(m, leaf, "-verify_hostname", name), (m.name, leaf.name, name)
        for address in leaf.addresses:
            assert files.accepted(m, leaf, "-verify_ip", address), (m.name, leaf.name, address)
        assert bool(leaf.dns or leaf.addresses) is (Usage.SERVER in leaf.usages)
        if Usage.SERVER in leaf.usages:
            assert not files.accepted(m, leaf, "-verify_ip", "10.0.0.99")
            assert not files.accepted(m, leaf, "-verify_hostname", "other")


@pytest.mark.parametrize(
    "option",
    [
        ("-verify_hostname", "kubernetes"),
        ("-verify_hostname", "kubernetes.default"),
        ("-verify_hostname", "kubernetes.default.svc"),
        ("-verify_hostname", "kubernetes.default.svc.cluster.local"),
        ("-verify_hostname", "localhost"),
        ("-verify_hostname", "master2"),
        ("-verify_hostname", "api.example.org"),
        ("-verify_ip", "10.0.0.12"),
        ("-verify_ip", "10.96.0.1"),
        ("-verify_ip", "127.0.0.1"),
        ("-verify_ip", "10.0.0.100"),
    ],
)
def test_an_apiserver_is_known_under_every_way_to_reach_it(
    files: Files, option: tuple[str, str]
) -> None:
    master = CLUSTER.machine("master2")
    leaf = table.apiserver(CLUSTER, master)
    assert files.accepted(master, leaf, "-purpose", "sslserver", *option)


@pytest.mark.parametrize("address", ["10.0.0.13", "127.0.0.1"])
def test_etcd_and_the_registry_are_known_on_the_network_and_on_the_loopback(
    files: Files, address: str
) -> None:
    master = CLUSTER.machine("master3")
    for row in (table.etcd_server, table.registry):
        assert files.accepted(master, row(CLUSTER, master), "-verify_ip", address)


@pytest.mark.parametrize(
    ("row", "subject"),
    [
        (table.kubelet_serving, "O=system:nodes, CN=system:node:worker2.example.org"),
        (table.proxy_probe, "CN=clusterctl:probe"),
        (table.registry_client, "CN=clusterctl:registry-client"),
        (table.controller_manager, "CN=system:kube-controller-manager"),
        (table.scheduler, "CN=system:kube-scheduler"),
        (table.admin, "O=system:masters, CN=kubernetes-admin"),
    ],
)
def test_subjects_are_the_users_and_groups_that_kubernetes_expects(
    tmp_path: Path, row, subject: str
) -> None:
    now = datetime.now(UTC)
    worker = CLUSTER.machine("worker2.example.org")
    certificate = issue(row(CLUSTER, worker), Trust.create("ha", now), now).certificate
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253,sep_comma_plus_space,-dn_rev"],
        input=certificate, capture_output=True, check=True,
    )  # fmt: skip
    assert shown.stdout.decode().strip().removeprefix("subject=") == subject


def test_only_the_break_glass_certificate_is_in_system_masters(files: Files) -> None:
    powerful = {
        (m.name, leaf.name) for m, leaf in files.leaves if "system:masters" in leaf.organizations
    }
    assert powerful == {(m.name, "admin") for m in CLUSTER.masters}


def test_no_two_leaves_of_a_machine_share_a_file_or_a_name() -> None:
    for m in CLUSTER.machines:
        leaves = table.node_leaves(CLUSTER, m)
        files = [path for leaf in leaves for path in (leaf.cert_path, leaf.key_path)]
        files += Trust.create("ha", datetime.now(UTC)).files()
        assert len(set(files)) == len(files)
        assert len({leaf.name for leaf in leaves}) == len(leaves)


def test_etcds_keys_are_etcds_and_lie_apart_from_those_of_root() -> None:
    for m in CLUSTER.machines:
        for leaf in table.node_leaves(CLUSTER, m):
            in_etcd = leaf.key_path.startswith(f"{paths.ETCD_PKI}/")
            assert (leaf.owner, leaf.group) == (("etcd", "etcd") if in_etcd else ("root", "root"))
            assert leaf.cert_path.startswith(f"{paths.ETCD_PKI}/") is in_etcd


def test_the_proxys_key_is_where_haproxy_looks_for_it() -> None:
    probe = table.proxy_probe(CLUSTER, CLUSTER.workers[0])
    assert probe.key_path == f"{probe.cert_path}.key"


def test_a_worker_holds_nothing_of_the_control_plane() -> None:
    names = {leaf.name for leaf in table.node_leaves(CLUSTER, CLUSTER.machine("worker1"))}
    assert names == {"kubelet-serving", "registry-client", "proxy-probe"}


def test_a_machine_for_etcd_alone_holds_only_etcds_leaves() -> None:
    etcd = machine("etcd1", "10.0.0.31", frozenset({Role.ETCD}))
    assert {leaf.authority for leaf in table.node_leaves(CLUSTER, etcd)} == {Authority.ETCD}
    assert len(table.node_leaves(CLUSTER, etcd)) == 3


def test_a_master_without_etcd_is_a_client_of_etcd_only() -> None:
    master = machine("master1", "10.0.0.11", frozenset({Role.MASTER}))
    names = {
        leaf.name for leaf in table.node_leaves(CLUSTER, master) if leaf.authority is Authority.ETCD
    }
    assert names == {"apiserver-etcd-client"}


def test_a_users_certificate_expires_within_hours_and_is_on_no_machine(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    trust = Trust.create("ha", now)
    leaf = table.user("jane", ("clusterctl:admins", "developers"), hours=8)
    assert (leaf.cert_path, leaf.key_path) == ("", "")
    certificate, ca = tmp_path / "jane.crt", tmp_path / "ca.crt"
    certificate.write_bytes(issue(leaf, trust, now).certificate)
    ca.write_bytes(trust.kubernetes.certificate)

    def accepted(hours: float) -> bool:
        at = str(int(now.timestamp() + hours * 3600))
        command = ["openssl", "verify", "-purpose", "sslclient", "-attime", at, "-CAfile", ca]
        return (
            subprocess.run([*command, certificate], capture_output=True, check=False).returncode
            == 0
        )

    assert accepted(0)
    assert accepted(7.9)
    assert not accepted(8.1)
