"""The host's firewall: who gets in where, SSH above all."""

import re
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from provision.apply.change import ComponentChange
from provision.apply.install import program
from provision.apply.phases import firewall as firewall_phase
from provision.desired import catalog
from provision.desired.components import firewall
from provision.inventory import read
from provision.model.cluster import Cluster, Role
from provision.model.errors import PhaseError, UnreachableError
from provision.model.settings.network import Networks
from provision.model.settings.security import Firewall, PodSecurity
from tests.world import (
    DEFAULT,
    LAB,
    cluster,
    converge,
    disks,
    look,
    machine,
    master,
    plan_of,
    trust,
    worker,
)

ON = cluster(firewall=Firewall())
SEPARATE = cluster(master("m1"), machine("e1", Role.ETCD), worker("w1"), firewall=Firewall())


def rules(of, name, facts=LAB):
    state = catalog.desired(of, of.machine(name), trust(), facts)["firewall"]
    return next(f.content.decode() for f in state.files if f.path == firewall.RULES)


def lets_in(of, name, port):
    """The sources from which a port is open; "" is every source."""
    lines = re.findall(r"^ +(?:ip saddr (\S+) )?tcp dport (\S+) accept", rules(of, name), re.M)
    return {source for source, dport in lines if dport == str(port)}


def test_there_is_none_unless_the_inventory_wants_one():
    assert "firewall" not in catalog.desired(DEFAULT, DEFAULT.machines[0], trust(), LAB)
    assert Cluster.model_validate({**dict(DEFAULT), "firewall": True}).firewall.enabled
    assert not Cluster.model_validate({**dict(DEFAULT), "firewall": False}).firewall.enabled


@pytest.mark.parametrize("of", [ON, SEPARATE], ids=["stacked", "separate"])
def test_ssh_is_open_to_all_on_every_machine_where_it_listens(of):
    for one in of.machines:
        text = rules(of, one.name, replace(LAB, ssh_ports=(22, 2222)))
        assert '    tcp dport { 22, 2222 } accept comment "SSH"' in text


def test_ssh_is_open_only_to_sources_in_the_inventory():
    of = cluster(firewall=Firewall(ssh_from=("10.0.0.0/8", "192.0.2.7/32")))
    text = rules(of, "w1")

    assert "    ip saddr 10.0.0.0/8 tcp dport { 22 } accept" in text
    assert "    ip saddr 192.0.2.7/32 tcp dport { 22 } accept" in text
    assert "    tcp dport { 22 }" not in text


def test_etcd_is_open_to_members_and_apiservers_only():
    assert lets_in(ON, "m1", 2379) == {"@masters", "@members"}
    assert lets_in(ON, "m1", 2380) == {"@members"}
    assert lets_in(ON, "w1", 2379) == set()
    assert lets_in(SEPARATE, "e1", 2379) == {"@masters", "@members"}
    assert lets_in(SEPARATE, "m1", 6443) == {""}


def test_the_api_is_open_to_all_and_kubelets_to_the_cluster():
    assert lets_in(ON, "m1", 6443) == {""}
    assert lets_in(ON, "w1", 6443) == set()
    assert lets_in(ON, "w1", 10250) == {"@machines", "10.244.0.0/16"}


def test_a_machine_opens_no_port_of_a_component_that_it_does_not_have():
    assert lets_in(SEPARATE, "e1", 10250) == set()
    assert lets_in(SEPARATE, "e1", 10256) == set()
    assert lets_in(SEPARATE, "e1", 7490) == {"@machines"}


def test_the_ports_of_services_stay_open_for_a_program_that_replaces_kube_proxy():
    without = cluster(firewall=Firewall(), networks=Networks(proxy_mode="none"))
    assert lets_in(without, "w1", 10256) == {""}
    assert lets_in(without, "w1", "30000-32767") == {""}


def test_routing_and_the_virtual_address_get_through_where_they_are_used():
    assert "meta l4proto 89" in rules(ON, "w1")
    assert "meta l4proto 112" in rules(ON, "m1")
    assert "meta l4proto 112" not in rules(ON, "w1")
    custom = cluster(firewall=Firewall(), networks=Networks(plugin="custom"))
    assert "meta l4proto 89" not in rules(custom, "w1")


def test_traffic_that_the_inventory_allows_comes_in():
    of = cluster(firewall=Firewall(allow=("tcp/9100 from 10.0.0.0/8", "udp/51820-51822")))

    assert 'ip saddr 10.0.0.0/8 tcp dport 9100 accept comment "of the inventory"' in rules(of, "w1")
    assert 'udp dport 51820-51822 accept comment "of the inventory"' in rules(of, "w1")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ('["9100"]', "cluster.firewall.allow"),
        ('["tcp/70000"]', "a port that does not exist"),
        ('["tcp/80 from 10.0.0.300"]', "is not a network"),
        ('["tcp/80; flush ruleset"]', "cluster.firewall.allow"),
    ],
)
def test_an_invalid_rule_is_refused_before_anything_is_touched(tmp_path, given, found):
    path = tmp_path / "inventory.py"
    path.write_text(
        f'cluster = {{"name": "demo", "machines": "lab", "firewall": {{"allow": {given}}}}}\n'
        'masters = ["m1"]\n'
    )
    with pytest.raises(Exception, match=found):
        read(path)


@pytest.mark.skipif(shutil.which("nft") is None, reason="no nft here")
@pytest.mark.parametrize(("of", "name"), [(ON, "m1"), (ON, "w1"), (SEPARATE, "e1")])
def test_nft_understands_the_rules(of, name):
    checked = subprocess.run(
        ["nft", "--check", "--file", "-"],
        input=rules(of, name),
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in checked.stderr:
        pytest.skip("not allowed to ask the kernel")
    assert checked.returncode == 0, checked.stderr


def test_switching_the_firewall_off_removes_only_the_firewall():
    machines = disks(ON)
    converge(ON, machines)
    plan = plan_of(DEFAULT, look(DEFAULT, machines))

    for machine_plan in plan.machines.values():
        (removal,) = machine_plan.remove
        assert (removal.component, removal.whole) == ("firewall", True)
        assert removal.units == ("clusterctl-firewall.service",)
        assert ("cleanup", "nft delete table inet clusterctl-firewall") in removal.lines
        assert not machine_plan.components


def test_pod_security_is_what_the_inventory_says():
    of = cluster(pod_security=PodSecurity(enforce="restricted", exempt=("legacy",)))
    state = catalog.desired(of, of.machine("m1"), trust(), LAB)["kube-apiserver"]
    text = next(f.content.decode() for f in state.files if f.path.endswith("/admission.yaml"))

    assert "enforce: restricted" in text
    assert "namespaces: [kube-system, local-path-storage, legacy]" in text


SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>{root}/said
case "$*" in
*is-enabled*) [ -e {root}/enabled ] ;;
*disable*) [ -e {root}/stubborn ] || rm -f {root}/enabled ;;
esac
"""


@pytest.mark.parametrize(
    ("there", "timer", "armed"),
    [((), 0, True), (("enabled",), 0, True), ((), 1, False), (("enabled", "stubborn"), 0, False)],
    ids=["no unit yet", "enabled", "no timer", "it stays enabled"],
)
def test_nothing_counts_as_armed_that_would_last_beyond_the_next_boot(
    tmp_path, there, timer, armed
):
    for name, text in (
        ("systemctl", SYSTEMCTL.format(root=tmp_path)),
        ("systemd-run", f'#!/bin/sh\necho "$*" >{tmp_path}/timer; exit {timer}\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name in there:
        (tmp_path / name).touch()
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", firewall.ARM], env=environment, check=False)
    assert (done.returncode == 0) == armed
    undo = (tmp_path / "timer").read_text().strip()
    assert undo.endswith("systemctl --quiet disable --now clusterctl-firewall.service")


@pytest.fixture
def phase(monkeypatch):
    """Runs the phase on three masters: what is said to them, in order; `answers` are theirs."""
    said = []

    def run(answers, locked_out=()):
        def shell(machine, command):
            words = {firewall.ARM: "arm", firewall.STAY: "stay", firewall.CONFIRM: "confirm"}
            said.append((machine.name, words.get(command, "undo")))
            return answers.get(said[-1], 0), "", "no"

        def connect(machine):
            if machine.name in locked_out:
                raise UnreachableError("refused")

        change = ComponentChange("firewall", start=(firewall.UNIT,), enable=("other.service",))
        monkeypatch.setattr(firewall_phase, "change", lambda *_: change)

        def install(_, changes):
            assert not any("enable" in program((c,)) for (c,) in changes.values())
            said.extend(
                (machine.name, f"restart {c.restart[0]}") for machine, (c,) in changes.items()
            )

        monkeypatch.setattr(firewall_phase, "install", install)
        engine = SimpleNamespace(shell=shell, connect_anew=connect)
        session = SimpleNamespace(engine=engine)
        work = SimpleNamespace(run=None, session=session, machines=ON.masters)
        firewall_phase.FIREWALL.run(work)

    return run, said


def of(said, name):
    return [what for machine, what in said if machine == name]


def test_rules_are_enabled_only_after_a_new_connection_got_through(phase):
    run, said = phase
    run({})
    for master_ in ("m1", "m2", "m3"):
        assert of(said, master_) == ["arm", "restart clusterctl-firewall.service", "confirm"]


def test_no_rule_changes_anywhere_if_one_machine_could_not_undo_it(phase):
    run, said = phase
    with pytest.raises(PhaseError, match="no rule was changed|undoes the rules"):
        run({("m2", "arm"): 1})
    assert {what for _, what in said} == {"arm", "stay"}
    assert [name for name, what in said if what == "stay"] == ["m1", "m2", "m3"]


@pytest.mark.parametrize("how", ["locked out", "not enabled"])
def test_rules_that_are_not_confirmed_are_undone_at_once(phase, how):
    run, said = phase
    locked_out = ("m2",) if how == "locked out" else ()
    with pytest.raises(PhaseError, match="m2"):
        run({} if locked_out else {("m2", "confirm"): 1}, locked_out)
    assert of(said, "m2")[-1] == "undo"
    assert of(said, "m1")[-1] == "confirm"
