"""What `clusterctl init` prints can be used at once."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.inventory import Draft, read, scaffold
from provision.model.errors import InventoryError
from provision.model.source import LAB, STATIC


@pytest.fixture(scope="module")
def parse(tmp_path_factory):
    path = tmp_path_factory.mktemp("scaffold") / "inventory.py"

    def write(text: str) -> Draft:
        path.write_text(text)
        return read(path)

    return write


def test_a_machine_at_an_ipv6_address_is_written_and_needs_an_ipv4_address(parse):
    text = scaffold.machines("demo", ["admin@[2001:db8::1]:2222"], ["root@[2001:db8::2]"])
    first, second = parse(text).hosts

    assert (first.ssh["hostname"], first.ssh["port"]) == ("2001:db8::1", 2222)
    assert second.ssh["hostname"] == "2001:db8::2"
    assert text.count("# add its IPv4 address") == 2


@settings(deadline=None, max_examples=30)
@given(masters=st.integers(1, 9).filter(lambda n: n != 2), workers=st.integers(0, 9))
def test_a_lab_of_any_size_reads_back(parse, masters, workers):
    draft = parse(scaffold.lab("demo", masters, workers))
    assert (draft.name, draft.source) == ("demo", LAB)
    assert [h.name for h in draft.hosts if h.name[0] == "m"] == [
        f"m{n + 1}" for n in range(masters)
    ]
    assert [h.name for h in draft.hosts if h.name[0] == "w"] == [
        f"w{n + 1}" for n in range(workers)
    ]
    assert draft.vip_auto == (masters > 1)
    assert draft.masters_schedulable == (workers == 0)


def test_machines_read_back_with_user_address_and_port(parse):
    draft = parse(
        scaffold.machines(
            "demo",
            ["admin@192.0.2.11", "root@192.0.2.12:2222", "192.0.2.13"],
            ["debian@db.example.org"],
        )
    )
    hosts = {host.name: host for host in draft.hosts}
    assert list(hosts) == ["m1", "m2", "m3", "w1"]
    assert hosts["m1"].address == IPv4Address("192.0.2.11")
    assert (hosts["m1"].ssh["user"], hosts["m1"].sudo) == ("admin", True)
    assert (hosts["m2"].ssh["port"], hosts["m2"].sudo) == (2222, False)
    assert hosts["w1"].ssh["hostname"] == "db.example.org"
    assert draft.source is STATIC


def test_machines_are_called_by_their_hostnames_where_all_targets_tell_them(parse):
    draft = parse(scaffold.machines("demo", ["alpha.example.org"], ["beta.example.org", "gamma"]))
    assert [host.name for host in draft.hosts] == ["alpha", "beta", "gamma"]


def test_hostnames_that_two_targets_share_are_not_used(parse):
    draft = parse(scaffold.machines("demo", ["a.example.org"], ["a.example.com"]))
    assert [host.name for host in draft.hosts] == ["m1", "w1"]


@pytest.mark.parametrize("masters", [0, 2])
def test_numbers_of_masters_that_make_no_cluster_are_refused(masters):
    with pytest.raises(InventoryError, match=f"{masters} masters"):
        scaffold.lab("demo", masters, 1)


@pytest.mark.parametrize("text", ['a"b', "a\n", "a\\", 'x"}, exit()', "{a}", "", "a'"])
def test_no_name_and_no_target_can_break_out_of_its_quotes(text):
    with pytest.raises(InventoryError):
        scaffold.lab(text)
    with pytest.raises(InventoryError):
        scaffold.machines("demo", [text])


def test_every_bad_target_is_named():
    with pytest.raises(InventoryError) as caught:
        scaffold.machines("demo", ["-oProxyCommand=x", "a b", "192.0.2.1:70000"])
    assert [f.where for f in caught.value.findings] == ["machines"] * 3
