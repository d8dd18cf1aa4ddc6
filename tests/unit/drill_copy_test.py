"""The lab of a drill is like the inventory, and is another one."""

from pathlib import Path

import pytest

from provision.drill.copy import text
from provision.inventory import read
from provision.model.source import LAB

OWN = """
cluster = {
    "name": "mine",
    "kubernetes": "1.35.4",
    "api": {"name": "api.example.com", "port": 8443},
    "networks": {"pods": "10.8.0.0/16", "proxy_mode": "iptables"},
    "addons": {"metrics_server": False},
    "extra_args": {"kubelet": {"max-pods": "50"}},
}
masters = [
    ("a", {"ssh_hostname": "192.0.2.1", "ssh_user": "admin", "_sudo": True}),
    ("b", {"ssh_hostname": "192.0.2.2"}),
    ("c", {"ssh_hostname": "192.0.2.3"}),
]
workers = [
    ("d", {"ssh_hostname": "192.0.2.4", "labels": {"zone": "x"}, "taints": ["gpu=yes:NoSchedule"]})
]
"""


@pytest.fixture
def copied(tmp_path):
    """Inventory text -> (its draft, the draft of its copy)."""

    def make(content):
        path = tmp_path / "own.py"
        path.write_text(content)
        draft = read(path)
        (tmp_path / "copy.py").write_text(text(draft))
        return draft, read(tmp_path / "copy.py")

    return make


def test_machines_settings_labels_and_taints_are_the_same(copied):
    own, lab = copied(OWN)
    assert [(h.name, h.roles, h.labels, h.taints) for h in lab.hosts] == [
        (h.name, h.roles, h.labels, h.taints) for h in own.hosts
    ]
    for field in ("kubernetes", "networks", "addons", "extra_args", "masters_schedulable"):
        assert getattr(lab, field) == getattr(own, field)


def test_name_machines_and_address_are_its_own(copied):
    _, lab = copied(OWN)
    assert lab.name == "mine-drill"
    assert lab.source is LAB
    assert lab.vip_auto
    assert lab.api.name is None
    assert not any(host.ssh for host in lab.hosts)


def test_a_lab_signs_for_itself(copied):
    certificates = "'certificates': {'authority': 'external'}"
    own, lab = copied(
        f"cluster = {{'name': 'x', {certificates}, 'machines': 'lab'}}\nmasters = ['m1']\n"
    )
    assert own.certificates.external
    assert not lab.certificates.external


def test_separate_etcd_machines_stay_separate(copied):
    own, lab = copied(
        "cluster = {'name': 'x', 'machines': 'lab'}\n"
        "masters = ['m1', 'm2']\nworkers = ['w1']\netcd = ['e1', 'e2', 'e3']\n"
    )
    assert {h.name: h.roles for h in lab.hosts} == {h.name: h.roles for h in own.hosts}


def test_a_long_name_stays_within_what_a_name_may_be(copied):
    _, lab = copied(f"cluster = {{'name': '{'n' * 40}', 'machines': 'lab'}}\nmasters = ['m1']\n")
    assert lab.name.endswith("-drill")
    assert lab.name.startswith("nnnn")


@pytest.mark.parametrize("name", ["ha", "single", "separate_etcd"])
def test_inventories_that_come_with_the_project_can_be_drilled(copied, name):
    own, lab = copied(Path("inventories", f"{name}.py").read_text())
    assert [(h.name, h.roles) for h in lab.hosts] == [(h.name, h.roles) for h in own.hosts]
