"""What is decided about Vagrant's machines before Vagrant is asked."""

import json
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from provision.inventory import Draft, HostEntry
from provision.local.progress import Silent
from provision.machines.lab_names import lab_id
from provision.machines.vagrant import Vagrant, state_of
from provision.machines.vagrant_command import (
    VagrantCommand,
    parse_ssh_config,
    parse_states,
    split_ssh_config,
    vagrantfile,
)
from provision.machines.vagrant_providers import HOST_ONLY, VirtualMachines, choose, docker, start
from provision.model.cluster import Role
from provision.model.errors import MachinesError
from provision.model.settings.local import Vagrant as VagrantSettings

SSH_CONFIG = """\
Host n1
  HostName 127.0.0.1
  User vagrant
  Port 2200
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "/home/o p/private_key"
  IdentitiesOnly yes
  LogLevel FATAL

Host n2
  HostName 127.0.0.1
  User root
  Port 2222
  IdentityFile /root/id_ed25519
  LogLevel FATAL
"""


def draft_of(*names, inventory="/a/vagrant.py", **settings):
    hosts = tuple(HostEntry(name=name, roles=frozenset({Role.MASTER})) for name in names)
    return Draft(
        name="demo",
        source="vagrant",
        inventory=Path(inventory),
        vagrant=VagrantSettings(**settings),
        hosts=hosts,
    )


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A state directory of the test's own, and no program to be called."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.fixture
def machines(nowhere):
    """Write the notes of machines that Vagrant has made."""

    def write(draft, provider, told=()):
        directory = nowhere / "clusterctl" / "labs" / lab_id(draft)
        for host in draft.hosts:
            id_file = directory / "vagrant" / "machines" / host.name / provider / "id"
            id_file.parent.mkdir(parents=True)
            id_file.write_text("8c2f")
        (directory / "machines.json").write_text(json.dumps(told))

    return write


def test_states_are_read_among_all_else_that_vagrant_says():
    said = (
        "1795247419,m1,metadata,provider,docker\n"
        "1795247419,m1,state,running\n"
        "1795247419,m1,state-human-long,It runs.\\nSo%!(VAGRANT_COMMA) well.\n"
        "1795247419,w1,state,poweroff\n"
        "1795247419,,ui,info,Current machine states:\n"
    )
    assert parse_states(said) == {"m1": "running", "w1": "poweroff"}


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("running", "running"),
        ("not_created", "absent"),
        ("poweroff", "stopped"),
        ("shutoff", "stopped"),
        ("saved", "stopped"),
    ],
)
def test_every_providers_state_maps_to_a_state_of_clusterctl(word, state):
    assert state_of(word) == state


def test_the_ways_to_machines_are_read_and_others_than_root_use_sudo():
    ways = parse_ssh_config(SSH_CONFIG)
    assert set(ways) == {"n1", "n2"}
    assert (ways["n1"].hostname, ways["n1"].port, ways["n1"].user) == ("127.0.0.1", 2200, "vagrant")
    assert ways["n1"].key == Path("/home/o p/private_key")
    assert ways["n1"].sudo
    assert not ways["n2"].sudo


def test_the_way_to_one_machine_is_replaced_without_those_to_others():
    parts = split_ssh_config(SSH_CONFIG)
    assert "".join(parts[name] for name in ("n1", "n2")).split() == SSH_CONFIG.split()
    moved = {**parts, "n2": parts["n2"].replace("2222", "2201")}
    ways = parse_ssh_config("\n".join(moved.values()))
    assert [ways[name].port for name in ("n1", "n2")] == [2200, 2201]


def test_machines_that_are_there_settle_the_provider_then_the_inventory(nowhere):
    assert choose("auto", {"m1": "libvirt"}) == "libvirt"
    assert choose("docker", {"m1": "virtualbox"}) == "virtualbox"
    assert choose("libvirt", {}) == "libvirt"


def test_auto_takes_virtualbox_where_it_is_installed_and_containers_where_nothing_is(nowhere):
    assert choose("auto", {}) == "docker"
    program = nowhere / "bin" / "VBoxManage"
    program.parent.mkdir()
    program.touch(mode=0o755)
    assert choose("auto", {}) == "virtualbox"


def test_another_provider_than_that_of_machines_that_are_there_is_refused(machines):
    draft = draft_of("m1", provider="libvirt")
    machines(draft, "virtualbox")
    with pytest.raises(
        MachinesError, match="made by virtualbox, but the inventory has libvirt"
    ) as caught:
        Vagrant().create(draft, Silent())
    assert "machines down" in caught.value.hint


def test_machines_never_made_are_absent_and_vagrant_is_not_asked():
    source, draft = Vagrant(), draft_of("m1", "m2", provider="virtualbox", memory=1536, cpus=3)
    first, second = source.status(draft)
    assert (first.name, first.state) == ("m1", "absent")
    assert second.address == str(IPv4Address(first.address) + 1)
    assert source.missing(draft) == ("m1", "m2")
    assert first.spec["memory"] == 1536
    assert first.spec["cpus"] == 3
    assert source.locate(draft)["m1"].ssh.host_key is None


def test_without_vagrant_the_error_says_how_to_install_it():
    draft = draft_of("m1", provider="virtualbox")
    with pytest.raises(MachinesError, match="not installed") as caught:
        Vagrant().create(draft, Silent())
    assert "apt-get install vagrant" in caught.value.hint


def test_removing_what_was_never_made_needs_no_vagrant(nowhere):
    Vagrant().destroy(draft_of("m1", provider="virtualbox"), Silent())
    assert not (nowhere / "clusterctl" / "labs").exists()


def test_two_checkouts_have_machines_of_different_names_and_notes_in_different_places():
    one, other = (draft_of("m1", inventory=path, provider="libvirt") for path in ("/a.py", "/b.py"))
    specs = [Vagrant().status(draft)[0].spec for draft in (one, other)]
    for key in ("name", "network", "dotfile"):
        assert specs[0][key] != specs[1][key]


def test_virtual_machines_are_on_a_network_that_virtualbox_allows():
    network = VirtualMachines("virtualbox", {})
    draft = draft_of("m1", "m2")
    addresses = network.addresses(draft)
    assert all(address in HOST_ONLY for address in addresses.values())
    assert network.vip(draft) not in addresses.values()
    assert IPv4Network((network.vip(draft), 24), strict=False).supernet_of(
        IPv4Network(addresses["m2"])
    )


def test_a_network_of_the_inventory_is_taken():
    draft = draft_of("m1", network="172.30.0.0/16")
    machines = VirtualMachines("libvirt", {})
    assert machines.addresses(draft) == {"m1": IPv4Address("172.30.0.11")}
    assert machines.spec(draft, "m1", IPv4Address("172.30.0.11"))["netmask"] == "255.255.0.0"


def test_a_virtual_machine_that_exists_keeps_its_address(machines):
    draft = draft_of("new", "m1", provider="virtualbox")
    known = VirtualMachines("virtualbox", {"m1": IPv4Address("192.168.60.11")})
    assert known.addresses(draft) == {
        "new": IPv4Address("192.168.60.12"),
        "m1": IPv4Address("192.168.60.11"),
    }


def test_vagrant_is_shown_this_labs_containers_only():
    program = docker(("echo", "--global"), "demo-1")
    for given, called in (
        (["ps", "-a", "-q"], "--global ps --filter=label=clusterctl.lab=demo-1 -a -q"),
        (["inspect", "8c2f"], "--global inspect 8c2f"),
        (["run", "-d", "a b"], "--global run -d a b"),
    ):
        done = subprocess.run(
            ["/bin/sh", "-c", program, "docker", *given],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "/usr/bin:/bin"},
        )
        assert done.stdout == f"{called}\n"


def test_a_container_becomes_systemd_with_its_keys_in_place():
    assert start("admin").endswith("exec /sbin/init")
    assert "/etc/ssh/authorized_keys.d/admin" in start("admin")


def test_machines_that_vagrant_made_are_known_without_calling_it(tmp_path):
    dotfile = tmp_path / "vagrant"
    for name, provider in (("m1", "docker"), ("w1", "docker")):
        (dotfile / "machines" / name / provider).mkdir(parents=True)
    (dotfile / "machines" / "m1" / "docker" / "id").write_text("8c2f")
    assert VagrantCommand(tmp_path / "machines.json", dotfile).made() == {"m1": "docker"}


def test_there_is_a_vagrantfile():
    assert vagrantfile().is_file()
