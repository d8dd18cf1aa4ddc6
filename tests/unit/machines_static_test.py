"""Machines that are there already."""

import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from provision.inventory import Draft, HostEntry
from provision.local.progress import Silent
from provision.machines.lab import Lab
from provision.machines.sources import source_of
from provision.machines.static import Static
from provision.model.cluster import Role
from provision.model.errors import InventoryError, MachinesError
from provision.model.source import SOURCES, Source


def host(name, **data):
    return HostEntry(name=name, roles=frozenset({Role.MASTER}), **data)


def draft(*hosts, source="static"):
    return Draft(name="demo", source=source, inventory=Path("/inv.py"), hosts=hosts)


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_given_address_is_used_and_ssh_connects_to_the_given_host():
    given = host("a", address=IPv4Address("192.0.2.1"), ssh={"hostname": "a.invalid"})
    located = Static().locate(draft(given))["a"]
    assert located.address == IPv4Address("192.0.2.1")
    assert located.ssh.hostname == "a.invalid"


def test_ssh_connects_to_the_given_address_by_default():
    located = Static().locate(draft(host("a", address=IPv4Address("192.0.2.1"))))["a"]
    assert located.ssh.hostname == "192.0.2.1"


def test_an_address_as_ssh_hostname_is_the_machines_address():
    located = Static().locate(draft(host("a", ssh={"hostname": "192.0.2.7", "port": 2222})))["a"]
    assert located.address == IPv4Address("192.0.2.7")
    assert located.ssh.port == 2222


def test_a_name_is_resolved():
    assert Static().locate(draft(host("localhost")))["localhost"].address.is_loopback


def test_login_and_sudo_are_handed_on():
    given = host(
        "a",
        address=IPv4Address("192.0.2.1"),
        ssh={"user": "admin", "key": Path("/k")},
        sudo=True,
        sudo_password="s3cret",
    )
    ssh = Static().locate(draft(given))["a"].ssh
    assert (ssh.user, ssh.key, ssh.sudo, ssh.sudo_password) == ("admin", Path("/k"), True, "s3cret")


def test_all_names_that_cannot_be_resolved_are_reported_at_once():
    with pytest.raises(InventoryError) as caught:
        Static().locate(draft(host("a.invalid"), host("localhost"), host("b.invalid")))
    assert [finding.where for finding in caught.value.findings] == ["a.invalid", "b.invalid"]


def test_state_is_whether_the_ssh_port_answers(listening):
    up = host("up", ssh={"hostname": "127.0.0.1", "port": listening, "user": "admin"})
    down = host("down", ssh={"hostname": "127.0.0.1", "port": 1})
    states = Static().status(draft(up, down))
    assert [(s.name, s.state) for s in states] == [("up", "running"), ("down", "unknown")]
    assert states[0].ssh == "admin@127.0.0.1"


def test_there_is_nothing_to_make_or_remove():
    here = draft(host("localhost"))
    Static().create(here, Silent())
    Static().destroy(here, Silent())
    assert Static().missing(here) == ()
    assert Static().vip(here) is None


def test_the_source_is_chosen_by_the_inventory():
    assert isinstance(source_of(draft()), Static)
    assert isinstance(source_of(draft(source="lab")), Lab)


def test_every_kind_of_machines_has_code():
    for name in SOURCES:
        source_of(draft(source=name))


def test_a_kind_of_machines_without_code_is_refused_by_name():
    unknown = Source("rented", "rented machines")
    with pytest.raises(MachinesError, match="rented machines: rented has no code") as caught:
        source_of(draft(source=unknown))
    assert caught.value.hint == f"these sources have code: {', '.join(SOURCES)}"
