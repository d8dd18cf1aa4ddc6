"""What a component states of itself is enough: its phase, its units, its ports.

Each rule is a function that names the components that break it. Each test also adds a component
that breaks the rule, to see that the rule finds it.
"""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from provision.apply.phases import UP
from provision.desired import catalog
from provision.desired.components import firewall
from provision.desired.model import (
    Allow,
    Component,
    ComponentPhase,
    ComponentState,
    Listens,
    Port,
    Protocol,
    Unit,
    Who,
)
from provision.machines.ec2.names import MASTERS
from provision.machines.ec2.rules import rules
from provision.model import ports
from provision.model.cluster import Role
from provision.model.settings.ec2 import Ec2
from provision.model.settings.network import Networks
from provision.plan.machine_checks import needed_ports
from provision.plan.model import ComponentPlan, MachinePlan, Plan
from tests.world import DEFAULT, LAB, cluster, machine, master, trust, worker

SEPARATE = cluster(master("m1"), machine("e1", Role.ETCD), worker("w1"))
ON_EC2 = cluster(master("m1"), worker("w1"), source="ec2", ec2=Ec2(region="eu-central-1"))
CLUSTERS = (DEFAULT, SEPARATE, ON_EC2, cluster(networks=Networks(proxy_mode="iptables")))


def component(name="broken", **values):
    """A component that is on every machine and does nothing."""
    given = {
        "summary": "",
        "phase": ComponentPhase.SERVICES,
        "wanted": lambda *_: True,
        "state": lambda *_: ComponentState(name),
    }
    return Component(name, **{**given, **values})


# Phases


def phases_that_install(name):
    """The phases of `up` that have work on a machine because this component changes there."""

    def phases(components):
        plan = Plan({"m1": MachinePlan("m1", components=components)})
        run = SimpleNamespace(
            plan=plan,
            bundle=None,
            session=SimpleNamespace(cluster=DEFAULT, leader=DEFAULT.machines),
        )
        return {phase.name for phase in UP if _selects(phase, run)}

    return phases({name: ComponentPlan(ComponentState(name))}) - phases({})


def _selects(phase, run):
    try:
        return "m1" in phase.machines(run)
    except (AttributeError, TypeError):
        return False  # it asks the session for more than a plan: it installs no component


def in_no_phase(components):
    return [c.name for c in components if len(phases_that_install(c.name)) != 1]


def test_up_installs_every_component_in_exactly_one_phase():
    assert in_no_phase(catalog.COMPONENTS) == []
    assert in_no_phase((*catalog.COMPONENTS, component(phase=None))) == ["broken"]


def test_the_phases_of_components_are_all_installed():
    for phase in ComponentPhase:
        assert catalog.in_phase(phase), f"{phase} has no component"
    assert sorted(catalog.in_phase(*ComponentPhase)) == sorted(c.name for c in catalog.COMPONENTS)


def test_a_component_cannot_be_made_without_a_phase():
    with pytest.raises(TypeError, match="phase"):
        Component("broken", "", wanted=lambda *_: True, state=lambda *_: ComponentState("broken"))


# Units


def unlisted_units(components):
    return {
        (c.name, unit.name)
        for of in CLUSTERS
        for m in of.machines
        for c in components
        if c.wanted(of, m)
        for unit in c.state(of, m, trust(), LAB).units
        if unit.name not in c.units
    }


def test_every_unit_of_a_components_state_is_one_of_its_units():
    forgetful = component(state=lambda *_: ComponentState("broken", units=(Unit("new.service"),)))

    assert unlisted_units(catalog.COMPONENTS) == set()
    assert unlisted_units((*catalog.COMPONENTS, forgetful)) == {("broken", "new.service")}


# Timers, and programs without an answer that do their work once or wait for events.
NO_ENDPOINT = {"certificates", "backup", "group", "vpc-routes", "cloud-controller"}


def asks_only_systemd(components):
    """Components whose health is only that systemd has started them."""
    return {
        c.name
        for of in (DEFAULT, SEPARATE)
        for m in of.machines
        for c in components
        if c.wanted(of, m)
        for state in [c.state(of, m, trust(), LAB)]
        if state.units and not re.sub(r"systemctl is-active --quiet \S+( && )?", "", state.health)
    }


def test_a_program_that_ends_right_after_its_start_is_not_healthy():
    units = (Unit("new.service"),)
    believes = component(
        state=lambda *_: ComponentState(
            "broken", units=units, health="systemctl is-active --quiet new.service"
        )
    )
    assert asks_only_systemd(catalog.COMPONENTS) <= NO_ENDPOINT
    assert "broken" in asks_only_systemd((*catalog.COMPONENTS, believes))


def test_no_unit_belongs_to_two_components():
    assert len(catalog.UNITS) == len(set(catalog.UNITS))


# Ports

# A second etcd, on loopback, while a snapshot is checked. It belongs to no component.
SCRATCH = {ports.ETCD_SCRATCH, ports.ETCD_SCRATCH_PEER}


def undeclared(numbers, components):
    """Ports of `provision.model.ports` that no component states."""
    return numbers - SCRATCH - {port.number for c in components for port in c.ports}


def test_every_port_is_stated_by_a_component():
    numbers = {value for value in vars(ports).values() if isinstance(value, int)}

    assert undeclared(numbers, catalog.COMPONENTS) == set()
    assert undeclared({*numbers, 61000}, catalog.COMPONENTS) == {61000}


@pytest.mark.parametrize("listens", [x for x in Listens if x is not Listens.LOOPBACK])
def test_a_port_beyond_loopback_must_say_who_may_connect(listens):
    with pytest.raises(ValueError, match="61000.*must say who"):
        Port(61000, "metrics", listens=listens)


def test_a_port_on_loopback_may_allow_no_remote_clients():
    with pytest.raises(ValueError, match="61000.*loopback only"):
        Port(61000, "metrics", allow=(Allow(Who.MACHINES),), listens=Listens.LOOPBACK)


def closed_in_the_firewall(of, components, opened_by):
    """Ports on which a process listens beyond loopback, and that no rule opens."""
    found = set()
    for m in of.machines:
        lines = [line for line, _ in firewall.openings(opened_by, of, m)]
        found |= {
            (m.name, number)
            for number, _, address in needed_ports(of, m, components)
            if address != "127.0.0.1"
            and not any(line.endswith(f"tcp dport {number} accept") for line in lines)
        }
    return found


@pytest.mark.parametrize("of", CLUSTERS)
def test_the_firewall_opens_every_port_on_which_a_process_listens(of):
    extra = component(ports=(Port(61000, "metrics", allow=(Allow(Who.MACHINES),)),))
    added = (*catalog.COMPONENTS, extra)

    assert closed_in_the_firewall(of, catalog.COMPONENTS, catalog.COMPONENTS) == set()
    assert closed_in_the_firewall(of, added, added) == set()
    assert closed_in_the_firewall(of, added, catalog.COMPONENTS) == {
        (m.name, 61000) for m in of.machines
    }


def test_the_catalogues_firewall_guards_every_other_component():
    of = cluster(firewall={"enabled": True})
    for m in of.machines:
        state = catalog.component("firewall").state(of, m, trust(), LAB)
        text = next(f.content.decode() for f in state.files if f.path == firewall.RULES)
        for line, comment in firewall.openings(catalog.COMPONENTS, of, m):
            assert f'{line} comment "{comment}"' in text


def closed_on_ec2(components, opened_by):
    """(port, who) of what masters must let in beside masters and pods, and no rule opens."""
    ec2 = ON_EC2.ec2
    opened = {
        (number, str(rule.group or rule.network))
        for rule in rules(ON_EC2, MASTERS, opened_by)
        if rule.protocol == "tcp"
        for number in rule.ports
    }
    needed = {
        Who.MACHINES: {"security group workers"},
        Who.API_CLIENTS: {
            "security group workers",
            str(ec2.network),
            *map(str, ec2.api_from),
        },
        Who.HEALTH_CHECKS: {str(ec2.network)},
    }
    return {
        (port.number, source)
        for c in components
        for port in c.ports
        if port.protocol is Protocol.TCP
        for allow in port.allow
        for source in needed.get(allow.who, ())
        if (port.number, source) not in opened
    }


def test_on_ec2_the_security_group_of_masters_opens_every_port():
    extra = component(
        ports=(
            Port(61000, "metrics", allow=(Allow(Who.MACHINES), Allow(Who.HEALTH_CHECKS))),
            Port(0, "OSPF", (Allow(Who.MACHINES),), Listens.NOWHERE, Protocol.OSPF),
        )
    )
    added = (*catalog.COMPONENTS, extra)

    assert closed_on_ec2(catalog.COMPONENTS, catalog.COMPONENTS) == set()
    assert closed_on_ec2(added, added) == set()
    assert closed_on_ec2(added, catalog.COMPONENTS) == {
        (61000, "security group workers"),
        (61000, str(ON_EC2.ec2.network)),
    }


def test_everything_that_may_connect_to_a_machine_has_a_rule_on_ec2():
    """A port for any of these is either opened by its own rule or by one for all ports."""
    for who in Who:
        one = component(ports=(Port(61000, "metrics", allow=(Allow(who),)),))
        found = {r for r in rules(ON_EC2, MASTERS, (one,)) if r.ports == (61000, 61000)}
        by_all_ports = who in {Who.MASTERS, Who.MEMBERS, Who.OWN_PODS}
        by_cloud_controller = who is Who.SERVICE_CLIENTS
        assert bool(found) is not (by_all_ports or by_cloud_controller), who


def test_a_range_is_opened_as_a_range():
    one = component(
        ports=(Port(61000, "metrics", allow=(Allow(Who.MACHINES),), last=61009),),
    )
    (rule,) = (r for r in rules(ON_EC2, MASTERS, (one,)) if r.ports[0] == 61000)
    assert rule.ports == (61000, 61009)
    assert [line for line, _ in firewall.openings((one,), DEFAULT, DEFAULT.machines[0])] == [
        "ip saddr @machines tcp dport 61000-61009 accept"
    ]


def test_a_port_that_only_some_machines_need_is_open_on_these():
    one = component(
        ports=(Port(61000, "metrics", (Allow(Who.MACHINES),), on=lambda m: m.is_master),)
    )
    for m in DEFAULT.machines:
        assert bool(firewall.openings((one,), DEFAULT, m)) is m.is_master
        assert bool([*needed_ports(DEFAULT, m, (one,))]) is m.is_master
    assert not [
        *needed_ports(DEFAULT, DEFAULT.machines[0], (replace(one, wanted=lambda *_: False),))
    ]
