"""What the lab decides before it touches an engine."""

import io
import subprocess
import tarfile
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.inventory import Draft, HostEntry
from provision.machines.archive import archive
from provision.machines.lab_names import lab_id, volumes_of
from provision.machines.lab_network import (
    SUPERNET,
    assign,
    free_subnet,
    mac,
    resolv_conf,
    routes,
)
from provision.machines.ssh_keys import new_key, write
from provision.model.cluster import Role
from provision.model.errors import MachinesError

NET = IPv4Network("10.77.5.0/24")


def draft(inventory):
    host = HostEntry(name="m1", roles=frozenset({Role.MASTER}))
    return Draft(name="demo", source="lab", inventory=Path(inventory), hosts=(host,))


def test_labs_of_two_checkouts_have_different_names():
    assert lab_id(draft("/a/ha.py")) == lab_id(draft("/a/ha.py"))
    assert lab_id(draft("/a/ha.py")) != lab_id(draft("/b/ha.py"))
    assert lab_id(draft("/a/ha.py")).startswith("demo-")


third = st.integers(0, 255)


@given(st.text(min_size=1), st.sets(third, max_size=200))
def test_the_network_is_free_and_the_same_each_time(identity, used):
    taken = [IPv4Network(f"10.77.{i}.0/24") for i in used]
    subnet = free_subnet(identity, taken)
    assert subnet.subnet_of(SUPERNET)
    assert not any(subnet.overlaps(other) for other in taken)
    assert subnet == free_subnet(identity, taken)
    # Where nothing is in the way of a lab's own place, others do not matter.
    own = free_subnet(identity, [])
    assert subnet == own or own in taken


def test_a_route_inside_the_lab_network_is_avoided():
    half = IPv4Network("10.77.0.0/17")
    assert not free_subnet("x", [half]).overlaps(half)


def test_a_larger_network_that_contains_all_labs_is_no_obstacle():
    assert free_subnet("x", [IPv4Network("10.0.0.0/8")]) == free_subnet("x", [])


def test_without_a_free_network_the_error_names_the_cause():
    with pytest.raises(MachinesError, match="all of 10.77.0.0/16 is in use"):
        free_subnet("x", [SUPERNET])


def test_addresses_follow_the_inventorys_order():
    assert assign(NET, ["a", "b"], {}) == {"a": NET[11], "b": NET[12]}


def test_a_machine_that_exists_keeps_its_address_when_others_come_before_it():
    assert assign(NET, ["new", "a"], {"a": NET[11]}) == {"new": NET[12], "a": NET[11]}


def test_an_address_of_a_machine_no_longer_named_is_not_given_away():
    assert assign(NET, ["a"], {"gone": NET[11]}) == {"a": NET[12]}


@given(
    st.lists(st.text(min_size=1), unique=True, max_size=60),
    st.dictionaries(st.text(min_size=1), st.integers(11, 99), max_size=20),
)
def test_no_two_machines_share_an_address_and_none_has_the_virtual_one(names, known):
    unique = {name: NET[host] for host, name in {h: n for n, h in known.items()}.items()}
    result = assign(NET, names, unique)
    assert list(result) == names
    everyone = {**unique, **result}
    assert len(set(everyone.values())) == len(everyone)
    assert not set(result.values()) & {NET[0], NET[1], NET[100], NET[255]}


def test_more_machines_than_addresses_is_refused():
    with pytest.raises(MachinesError, match="243 addresses"):
        assign(NET, [f"m{i}" for i in range(244)], {})


def test_a_hardware_address_is_local_and_belongs_to_one_machine():
    assert mac(NET[11]) == "02:00:0a:4d:05:0b"
    assert mac(NET[11]) != mac(NET[12])


def test_only_this_labs_volumes_are_picked():
    names = ["demo-1-m1-etcd", "demo-1-m-2-kubelet", "demo-1-m1-other", "demo-12-m1-etcd", "x"]
    assert volumes_of("demo-1", names) == ("demo-1-m1-etcd", "demo-1-m-2-kubelet")


def test_the_kernels_routes_are_read_without_the_default():
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n"
        "eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    )
    assert routes(table) == (IPv4Network("10.77.0.0/24"),)
    assert routes("") == ()


def test_name_servers_on_the_operators_loopback_are_replaced_by_what_they_ask():
    local = "nameserver 127.0.0.53\nsearch home\noptions edns0\n"
    upstream = "# servers\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n"
    both = "nameserver 192.0.2.53\nnameserver 192.0.2.54\n"
    assert resolv_conf(local, upstream) == both
    assert resolv_conf(upstream, local) == both
    assert "127." not in resolv_conf(local)
    assert resolv_conf().count("nameserver") == 2


def test_archives_carry_content_and_mode_and_belong_to_root():
    packed = archive({"etc/ssh/key": (b"secret", 0o600)})
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        entry = tar.getmember("etc/ssh/key")
        assert (entry.mode, entry.uid, entry.gid) == (0o600, 0, 0)
        assert tar.extractfile(entry).read() == b"secret"


def test_openssh_reads_our_keys_and_agrees_on_the_public_half(tmp_path):
    key = new_key()
    path = tmp_path / "id"
    write(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    said = subprocess.run(
        ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == key.public
    assert (tmp_path / "id.pub").read_text().strip() == key.public
