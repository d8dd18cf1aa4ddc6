"""One table knows the distributions; every row gives complete machines."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.desired import catalog
from provision.desired.components import firewall, haproxy
from provision.desired.packages import NAMES, PACKAGES, own_units
from provision.model.distribution import (
    NEWEST,
    NFT_FOR_KUBERNETES,
    TABLE,
    UNKNOWN,
    Bird,
    Family,
    Proof,
    find,
)
from provision.model.settings.network import Networks
from provision.model.settings.security import Firewall
from tests.world import DEBIAN, PLAIN, cluster, trust

ROOT = Path(__file__).parents[2]
CLUSTER = cluster(firewall=Firewall(enabled=True), networks=Networks(proxy_mode="iptables"))
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def wanted(distribution, name="m1"):
    facts = replace(PLAIN, distribution=distribution)
    return catalog.desired(CLUSTER, CLUSTER.machine(name), trust(), facts)


def files(distribution):
    return {
        file.path: file.content.decode()
        for state in wanted(distribution).values()
        for file in state.files
    }


@ROWS
@pytest.mark.parametrize("name", ["m1", "w1"])
def test_every_row_gives_the_same_components_files_and_units(row, name):
    debian, other = wanted(DEBIAN, name), wanted(row, name)

    assert other.keys() == debian.keys()
    for component, state in other.items():
        assert [f.path for f in state.files] == [f.path for f in debian[component].files]
        assert state.units == debian[component].units
        assert all(f.content for f in state.files if f.path.endswith((".service", ".conf", ".cfg")))


@ROWS
def test_every_package_has_a_name_in_every_row_and_the_probe_asks_for_it(row):
    packages = {p for state in wanted(row).values() for p in state.packages}

    assert packages <= set(PACKAGES)
    programs = {row.packages(name) for name in ("haproxy", "keepalived", "bird2", "nftables")}
    assert all(len(names) == 1 and names[0] in packages for names in programs)
    assert own_units(sorted(packages)) == ("bird.service", "haproxy.service", "keepalived.service")


@ROWS
def test_the_table_is_complete(row):
    assert row.family is not Family.UNKNOWN
    assert row.ids
    if row.proof is Proof.NOTHING:
        return
    assert row.release
    assert row.systemd >= 245
    assert row.nftables
    assert row.kernel
    assert (row.bird_from is Bird.EPEL) is bool(row.epel)
    if row.proof is not Proof.EXPECTED:
        assert row.haproxy
        assert row.keepalived
        assert row.bird


@ROWS
def test_a_row_is_found_by_its_own_release(row):
    for os_id in row.ids:
        version = ".".join(f"{part:02}" for part in row.release)
        assert find(os_id, (), version) is row
        if row.family is Family.RHEL:
            assert find(os_id, ("rhel", "fedora"), f"{version}.3") is row or not row.release


@ROWS
def test_versions_get_configuration_that_they_accept(row):
    there = files(row)
    configuration = there[haproxy.CONFIG]
    frontends, backends = (
        set(re.findall(rf"^{section} (.+)$", configuration, re.MULTILINE))
        for section in ("frontend", "backend")
    )
    joined = haproxy.JOINED in configuration
    rules = there[firewall.RULES]

    assert backends >= set(re.findall(r"(?:default|use)_backend (\S+)", configuration))
    assert frontends.isdisjoint(backends) is (row.haproxy is not None and row.haproxy >= (3, 2))
    assert joined is (row.haproxy is not None and row.haproxy < (2, 4))
    unit = there["/etc/systemd/system/clusterctl-haproxy.service"]
    assert unit.count(f">{haproxy.JOINED}") == (2 if joined else 0)
    assert ("icmpx type admin" in rules) is (row.nftables is not None and row.nftables < (0, 9, 9))


def test_debian_11_lacks_what_kubernetes_needs_for_nftables():
    (old,) = (row for row in TABLE if not row.nft_for_kubernetes)

    assert old.name == "Debian 11"
    assert old.nftables < NFT_FOR_KUBERNETES


@pytest.mark.parametrize(
    ("os_id", "like", "version", "name", "proof"),
    [
        ("debian", (), "10", "Debian 11", Proof.NOTHING),
        ("debian", (), "", "Debian 13", Proof.NOTHING),
        ("debian", (), "14", "Debian 13", Proof.EXPECTED),
        ("ubuntu", ("debian",), "20.04", "Ubuntu 22.04", Proof.NOTHING),
        ("ubuntu", ("debian",), "25.10", "Ubuntu 24.04", Proof.EXPECTED),
        ("rocky", ("rhel", "centos", "fedora"), "9.6", TABLE[7].name, Proof.EXPECTED),
        ("rhel", ("fedora",), "8.10", "RHEL 9", Proof.NOTHING),
        ("linuxmint", ("ubuntu", "debian"), "22", "Ubuntu 26.04", Proof.NOTHING),
        ("fedora", (), "43", "Fedora", Proof.NOTHING),
        ("opensuse-leap", ("suse", "opensuse"), "15.6", UNKNOWN.name, Proof.NOTHING),
        ("", (), "", UNKNOWN.name, Proof.NOTHING),
    ],
)
def test_other_releases_get_the_nearest_row(os_id, like, version, name, proof):
    found = find(os_id, like, version)

    assert (found.name, found.proof) == (name, proof)


def test_programs_of_a_newer_release_are_newer_than_every_limit():
    newer = find("debian", (), "15")

    assert newer.haproxy == NEWEST
    assert newer.haproxy_wants_own_names
    assert newer.nft_for_kubernetes
    older = find("ubuntu", (), "18.04")
    assert not older.haproxy_reads_key
    assert not older.rejects_short
    assert not older.nft_for_kubernetes


@given(
    os_id=st.sampled_from(sorted({os_id for row in TABLE for os_id in row.ids} | {"kali", ""})),
    like=st.lists(st.sampled_from(["debian", "ubuntu", "rhel", "fedora", "suse"])),
    version=st.from_regex(r"(\d{1,4}(\.\d{1,2})?)?", fullmatch=True) | st.text(),
)
def test_every_os_release_has_one_distribution(os_id, like, version):
    found = find(os_id, tuple(like), version)

    assert (found.family is Family.UNKNOWN) is (found is UNKNOWN)
    if found is not UNKNOWN:
        assert found.packages(*NAMES)
        assert set(found.packages(*NAMES)) <= set(PACKAGES)


def test_no_other_module_knows_a_distribution():
    names = re.compile(r"""["'](debian|ubuntu|rhel|amzn|rocky|almalinux|centos|ol|fedora)["']""")
    # Images that make new machines: the lab's, and AMIs.
    images = {"inventory/amis.py"}

    found = {
        str(path.relative_to(ROOT / "provision"))
        for path in (ROOT / "provision").rglob("*.py")
        if names.search(path.read_text())
    }
    assert found - images == {"model/distribution.py"}


def shown(version):
    if version is None:
        return "?"
    return "new" if version == NEWEST else ".".join(map(str, version))


def test_the_documents_show_the_table():
    head = (
        "| Distribution | | HAProxy | keepalived | BIRD (from) | nft | systemd | kernel | SELinux | "
        "firewall | resolver |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    known = [row for row in TABLE if row.proof is not Proof.NOTHING]
    lines = [
        f"| {row.name} | {row.proof} | {shown(row.haproxy)} | {shown(row.keepalived)} | "
        f"{shown(row.bird)} ({row.bird_from.value}) | {shown(row.nftables)} | {row.systemd} | "
        f"{shown(row.kernel)} | {'enforcing' if row.selinux else '-'} | {row.firewall or '-'} | "
        f"{row.resolver or '-'} |\n"
        for row in known
    ]

    assert head + "".join(lines) in (ROOT / "docs/distributions.md").read_text()
    readme = (ROOT / "README.md").read_text()
    for proof in {row.proof for row in known}:
        names = "; ".join(row.name for row in known if row.proof is proof)
        assert f"| {proof} | {names} |" in readme
