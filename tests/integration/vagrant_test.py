"""Vagrant's own reading of the Vagrantfile, for hypervisors that this computer does not need."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provision import inventory
from provision.machines.vagrant import Vagrant
from provision.machines.vagrant_command import vagrantfile

pytestmark = pytest.mark.lab

READ = """
require "vagrant"
require "json"
environment = Vagrant::Environment.new
machines = environment.machine_names.to_h do |name|
  provider = environment.default_provider(machine: name)
  config = environment.vagrantfile.machine_config(name, provider, environment.boxes, nil, false)
  vm = config[:config].vm
  network = vm.networks.find { |kind, _| kind == :private_network }.last
  made = vm.get_provider_config(provider)
  resources = provider == :libvirt ? [made.memory, made.cpus] : made.customizations
  [name, [provider, vm.box, vm.hostname, network[:ip], network[:netmask], resources]]
end
puts JSON.generate(machines)
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Gives a function: provider -> environment for Vagrant, as for a call by a user."""
    if shutil.which("vagrant") is None:
        pytest.fail("vagrant is not installed: scripts/setup test")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def write(provider):
        path = tmp_path / "inventory.py"
        path.write_text(
            'cluster = {"name": "validate", "machines": "vagrant", "vagrant": {\n'
            f'    "provider": "{provider}", "memory": 1536, "cpus": 3, "box": "some/box",\n'
            '    "network": "192.168.57.0/24"}}\n'
            'masters = ["m1", "m2", "m3"]\nworkers = ["w1"]\n'
        )
        # VirtualBox is not in Debian. This script answers Vagrant's question for its version.
        stand_in = tmp_path / "bin" / "VBoxManage"
        stand_in.parent.mkdir()
        stand_in.write_text('#!/bin/sh\n[ "$1" != --version ] || echo 7.0.20r163906\n')
        stand_in.chmod(0o755)
        draft = inventory.read(path)
        return {
            **os.environ,
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
            "CLUSTERCTL_INVENTORY": str(path),
            "VAGRANT_CWD": str(vagrantfile().parent),
            "VAGRANT_DOTFILE_PATH": str(Vagrant().status(draft)[0].spec["dotfile"]),
            "VAGRANT_HOME": str(tmp_path / "home"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
        }

    return write


def call(environment, *argv):
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("provider", "resources"),
    [
        ("libvirt", [1536, 3]),
        (
            "virtualbox",
            [
                ["pre-boot", ["modifyvm", "id", "--memory", "1536"]],
                ["pre-boot", ["modifyvm", "id", "--cpus", 3]],
            ],
        ),
    ],
)
def test_vagrant_finds_the_vagrantfile_valid_and_takes_machines_from_the_inventory(
    told, provider, resources
):
    environment = told(provider)
    valid = call(environment, "vagrant", "validate")
    assert valid.returncode == 0, valid.stdout + valid.stderr
    read = call(environment, "ruby", "-e", READ)
    assert read.returncode == 0, read.stderr
    machines = json.loads(read.stdout)
    addresses = {"m1": 11, "m2": 12, "m3": 13, "w1": 14}
    assert set(machines) == set(addresses)
    for name, (used, box, hostname, address, netmask, own) in machines.items():
        assert (used, box, hostname) == (provider, "some/box", name)
        assert (address, netmask) == (f"192.168.57.{addresses[name]}", "255.255.255.0")
        assert [item for item in own if item in resources] == resources


def test_vagrant_called_by_hand_names_the_variable_to_export(told, tmp_path):
    environment = told("libvirt")
    notes = environment.pop("VAGRANT_DOTFILE_PATH")
    # Without a copy, Vagrant would leave an empty folder in the checkout.
    copy = tmp_path / "copy"
    shutil.copytree(vagrantfile().parent, copy)
    clusterctl = Path(sys.executable).parent
    environment |= {"VAGRANT_CWD": str(copy), "PATH": f"{clusterctl}:{environment['PATH']}"}
    done = call(environment, "vagrant", "status")
    assert done.returncode != 0
    assert f"export VAGRANT_DOTFILE_PATH={notes}" in done.stderr
