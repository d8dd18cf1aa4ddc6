"""What a good inventory file becomes."""

import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from textwrap import dedent

import pytest

from provision.inventory import Draft, complete, read
from provision.model.cluster import Role, Ssh, Taint
from provision.model.errors import InventoryError
from provision.model.located import Located
from provision.model.source import LAB, STATIC

SHIPPED = Path(__file__).parents[2] / "inventories"


@pytest.fixture
def inventory(tmp_path):
    """Write a file and read it."""

    def write(text: str) -> Draft:
        path = tmp_path / "inventory.py"
        path.write_text(dedent(text))
        return read(path)

    return write


def located(draft: Draft, **addresses: str) -> dict[str, Located]:
    return {
        host.name: Located(IPv4Address(addresses[host.name]), Ssh(hostname=addresses[host.name]))
        for host in draft.hosts
    }


def test_ha_is_three_masters_with_etcd_and_two_workers_in_the_lab():
    draft = read(SHIPPED / "ha.py")
    assert [h.name for h in draft.hosts] == ["m1", "m2", "m3", "w1", "w2"]
    assert [h.roles for h in draft.hosts] == [{Role.MASTER, Role.ETCD}] * 3 + [{Role.WORKER}] * 2
    assert (draft.source, draft.vip_auto, draft.api.vip) == (LAB, True, None)
    assert draft.warnings == ()


def test_single_is_one_machine_with_every_role():
    draft = read(SHIPPED / "single.py")
    assert [(h.name, h.roles) for h in draft.hosts] == [("n1", set(Role))]


def test_separate_etcd_leaves_the_masters_without_etcd():
    draft = read(SHIPPED / "separate_etcd.py")
    assert {h.name: h.roles for h in draft.hosts} == {
        "m1": {Role.MASTER},
        "m2": {Role.MASTER},
        "w1": {Role.WORKER},
        "e1": {Role.ETCD},
        "e2": {Role.ETCD},
        "e3": {Role.ETCD},
    }


def test_machines_reads_cleanly_once_its_key_exists(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    key = tmp_path / ".ssh" / "id_ed25519"
    key.parent.mkdir()
    key.touch(mode=0o600)
    draft = read(SHIPPED / "machines.py")
    assert draft.warnings == ()
    assert draft.source is STATIC
    hosts = {h.name: h for h in draft.hosts}
    assert hosts["m1"].ssh == {"hostname": "192.0.2.11", "user": "admin", "key": key}
    assert hosts["m1"].address == IPv4Address("192.0.2.11")
    assert hosts["m1"].sudo
    assert hosts["w2"].address == IPv4Address("192.0.2.22")
    assert hosts["w2"].ssh["port"] == 2222
    assert hosts["w3"].taints == (Taint(key="dedicated", value="database"),)


def test_the_file_may_compute_as_any_python_does(inventory):
    draft = inventory(
        """
        import os
        from pathlib import Path

        _count = 3
        here = Path(__file__).parent.name

        def names(letter):
            return [f"{letter}{n}" for n in range(1, _count + 1)]

        cluster = {"name": "demo"}
        masters = names("m")
        """
    )
    assert [h.name for h in draft.hosts] == ["m1", "m2", "m3"]


def test_a_machines_data_count_before_its_groups_and_later_groups_before_earlier(inventory):
    draft = inventory(
        """
        cluster = {"name": "demo"}
        masters = ([("m1", {"ssh_user": "own"}), "m2"], {"ssh_user": "first", "ssh_port": 1})
        workers = (["m1", "m2"], {"ssh_user": "second", "_sudo": True, "sudo_password": "x"})
        etcd = ["m1"]
        """
    )
    m1, m2 = draft.hosts
    assert (m1.ssh["user"], m1.ssh["port"], m1.sudo, m1.sudo_password) == ("own", 1, True, "x")
    assert (m2.ssh["user"], m2.ssh["port"]) == ("second", 1)


def test_labels_and_taints_of_machine_and_group_add_up_and_the_machines_own_win(inventory):
    draft = inventory(
        """
        cluster = {"name": "demo", "machines": "lab"}
        masters = ["m1"]
        workers = (
            [("w1", {"labels": {"zone": "b"}, "taints": ["gpu=yes:NoSchedule"]})],
            {"labels": {"zone": "a", "disk": "nvme"}, "taints": ["gpu:NoSchedule", "x:NoExecute"]},
        )
        """
    )
    worker = draft.hosts[1]
    assert worker.labels == {"zone": "b", "disk": "nvme"}
    assert {str(taint) for taint in worker.taints} == {"gpu=yes:NoSchedule", "x:NoExecute"}


def test_relative_paths_start_where_the_inventory_is_and_manifests_are_read(inventory, tmp_path):
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "cni.yaml").write_text("kind: DaemonSet\n")
    draft = inventory(
        """
        cluster = {"name": "demo", "networks": {"plugin": "custom", "manifests": ["cni.yaml"]}}
        masters = [("m1", {"ssh_key": "key"})]
        """
    )
    assert draft.hosts[0].ssh["key"] == tmp_path / "key"
    assert draft.networks.manifests == (tmp_path / "cni.yaml",)
    assert draft.files.manifests == ("kind: DaemonSet\n",)


def test_the_users_own_groups_and_names_are_left_alone(inventory):
    draft = inventory(
        """
        cluster = {"name": "demo"}
        masters = ["m1"]
        workers = ["w1", "w2"]
        workers_rack1 = ["w1"]
        databases = ["db1"]
        settings = {"anything": object()}
        functions = [print]
        """
    )
    assert [h.name for h in draft.hosts] == ["m1", "w1", "w2"]


def test_four_etcd_members_are_a_warning_and_two_are_one_when_forced(inventory):
    four = inventory(
        """
        cluster = {"name": "demo", "api": {"name": "api.example.org"}}
        masters = ["m1", "m2", "m3", "m4"]
        """
    )
    assert [(f.where, f.fatal) for f in four.warnings] == [("masters", False)]
    two = inventory(
        """
        cluster = {"name": "demo", "force_even_etcd": True, "api": {"name": "api.example.org"}}
        masters = ["m1", "m2"]
        """
    )
    assert [(f.where, f.fatal) for f in two.warnings] == [("masters", False)]


def test_several_masters_without_an_address_of_all_are_a_warning(inventory):
    several = inventory('cluster = {"name": "demo"}\nmasters = ["m1", "m2", "m3"]')
    assert [(f.where, f.fatal) for f in several.warnings] == [("cluster.api", False)]
    one = inventory('cluster = {"name": "demo"}\nmasters = ["m1"]')
    assert one.warnings == ()


def test_no_password_is_in_the_repr_of_a_draft(inventory):
    draft = inventory(
        """
        cluster = {"name": "demo", "proxy": {"http": "http://me:hunter2@proxy.example.org"}}
        masters = [("m1", {"ssh_password": "hunter2", "ssh_key_password": "hunter2",
                           "_sudo": True, "_sudo_password": "hunter2"})]
        """
    )
    assert draft.hosts[0].ssh["password"] == "hunter2"
    assert "hunter2" not in repr(draft)
    assert "hunter2" not in str(draft)


def test_a_draft_and_addresses_make_a_cluster():
    draft = read(SHIPPED / "ha.py")
    where = located(
        draft, m1="10.0.0.1", m2="10.0.0.2", m3="10.0.0.3", w1="10.0.0.4", w2="10.0.0.5"
    )
    cluster = complete(draft, where, IPv4Address("10.0.0.9"))
    assert cluster.endpoint == "https://10.0.0.9:6443"
    assert cluster.machine("w2").address == IPv4Address("10.0.0.5")
    assert cluster.stacked
    assert cluster.networks.pods == IPv4Network("10.244.0.0/16")
    assert cluster.inventory == SHIPPED / "ha.py"


def test_an_address_of_the_source_counts_only_when_the_file_leaves_it_to_the_source():
    draft = read(SHIPPED / "single.py")
    cluster = complete(draft, located(draft, n1="10.0.0.1"), IPv4Address("10.0.0.9"))
    assert cluster.api.vip is None


def test_addresses_that_do_not_fit_together_are_refused_all_at_once():
    draft = read(SHIPPED / "ha.py")
    where = located(
        draft, m1="10.0.0.1", m2="10.0.0.1", m3="10.244.7.1", w1="10.0.0.4", w2="10.96.0.5"
    )
    with pytest.raises(InventoryError) as caught:
        complete(draft, where, IPv4Address("10.0.0.4"))
    assert {f.where for f in caught.value.findings} == {
        "m2.address",
        "cluster.api.vip",
        "cluster.networks.pods",
        "cluster.networks.services",
    }


def test_a_version_that_upstream_no_longer_maintains_is_a_warning(inventory):
    ended = inventory(
        """
        cluster = {"name": "demo", "kubernetes": "1.34.10"}
        masters = ["m1"]
        """
    )
    (warning,) = [f for f in ended.warnings if f.where == "cluster.kubernetes"]
    assert not warning.fatal
    assert "1.34.10 gets no more security fixes" in warning.what
    assert "1.37.1" in warning.hint


MODULE = "from common import machines, settings\nmasters, cluster = machines, settings\n"


def beside(folder, name):
    """An inventory that imports a module of its own folder."""
    folder.mkdir()
    (folder / "common.py").write_text(
        f"machines = ['m1']\nsettings = {{'name': {name!r}, 'machines': 'lab'}}\n"
    )
    path = folder / "one.py"
    path.write_text(MODULE)
    return path


def test_an_inventory_imports_modules_beside_it_and_each_gets_its_own(tmp_path):
    first, second = beside(tmp_path / "a", "one"), beside(tmp_path / "b", "two")
    before = list(sys.path)

    assert [read(first).name, read(second).name, read(first).name] == ["one", "two", "one"]
    assert sys.path == before
    assert sorted(p.name for p in first.parent.iterdir()) == ["common.py", "one.py"]


def test_a_module_that_is_missing_is_an_error_with_the_line_and_the_folder(tmp_path):
    path = tmp_path / "one.py"
    path.write_text("x = 1\nimport nowhere_to_be_found\n")

    with pytest.raises(InventoryError) as raised:
        read(path)

    (finding,) = raised.value.findings
    assert finding.where == f"{path}:2"
    assert "nowhere_to_be_found" in finding.what
    assert str(tmp_path) in finding.hint


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "one.py"
    path.write_text("cluster = {'name': 'one', 'machines': 'lab'}\nmasters = ['m1']\n", "utf-8-sig")

    assert read(path).name == "one"


@pytest.mark.parametrize("group", ["all", "masters", "workers", "etcd"])
def test_data_of_groups_that_only_pyinfra_reads_is_a_warning(group, tmp_path):
    path = tmp_path / "one.py"
    path.write_text("cluster = {'name': 'one', 'machines': 'lab'}\nmasters = ['m1']\n")
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / f"{group}.py").write_text("ssh_user = 'admin'\n")

    (warning,) = read(path).warnings

    assert (warning.where, warning.fatal) == (f"group_data/{group}.py", False)
