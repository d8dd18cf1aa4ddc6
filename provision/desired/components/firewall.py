"""The host's firewall, if the inventory wants one: one table of nftables. Other tables stay as is.

Its rules are made from the ports of all components.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from provision.desired.model import (
    Allow,
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Listens,
    Port,
    Protocol,
    Unit,
    Who,
)
from provision.desired.render import render
from provision.model import paths
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.trust import Trust

TABLE = "clusterctl-firewall"
UNIT = "clusterctl-firewall.service"
RULES = f"{paths.CONFIG}/firewall.nft"

# Rules that would lock the operator out are removed after three minutes, even if clusterctl is
# killed meanwhile. A reboot also removes them: rules are enabled only after a new connection has
# passed them.
_GUARD = "clusterctl-firewall-undo"
UNDO = f"systemctl --quiet disable --now {UNIT}"
DISARM = f"systemctl stop {_GUARD}.timer 2>/dev/null; true"
ARM = (
    f"{DISARM}; systemd-run --quiet --collect --on-active=180 --unit={_GUARD} {UNDO} && "
    f"{{ systemctl --quiet disable {UNIT} 2>/dev/null; ! systemctl --quiet is-enabled {UNIT}; }}"
)
CONFIRM = f"systemctl --quiet enable {UNIT} && {{ {DISARM}; }}"
# Undoes ARM if the rules have not changed yet: the old rules stay in force.
STAY = f"! systemctl --quiet is-active {UNIT} || systemctl --quiet enable {UNIT}; {DISARM}"

# The order of the rules must not change: another order would reload existing clusters' firewalls.
_ORDER = ("kube-apiserver", "haproxy", "registry", "etcd", "kubelet", "kube-proxy", "host")


def guarding(components: tuple[Component, ...]) -> Component:
    """Give the firewall component that opens the ports of these components."""

    def state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
        return _state(cluster, machine, facts, openings(components, cluster, machine))

    return Component(
        "firewall",
        "just the ports that are needed, from where they are needed",
        ComponentPhase.FIREWALL,
        wanted=lambda cluster, _: cluster.firewall.enabled,
        state=state,
        units=(UNIT,),
    )


def openings(
    components: tuple[Component, ...], cluster: Cluster, machine: Machine
) -> list[tuple[str, str]]:
    """Give nftables rules for the ports of a machine's components: (rule, comment)."""
    found = [
        (component, port, allow)
        for component in components
        for port in component.ports
        if component.opens(cluster, machine, port)
        for allow in port.allow
    ]
    found.sort(key=_place)
    return [
        (
            _accept(_match(port), _source(allow.who, cluster)),
            f"{port.what}, {allow.why}" if allow.why else port.what,
        )
        for _, port, allow in found
    ]


def _place(opening: tuple[Component, Port, Allow]) -> tuple[bool, int]:
    component, port, allow = opening
    last = port.listens is Listens.NOWHERE or allow.who is Who.OWN_PODS
    name = component.name
    return last, _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _match(port: Port) -> str:
    if port.protocol is not Protocol.TCP:
        return port.protocol.value
    return f"tcp dport {port.number}-{port.last}" if port.last else f"tcp dport {port.number}"


def _source(who: Who, cluster: Cluster) -> str:
    """Give the addresses in nftables' syntax; empty: any address."""
    match who:
        case Who.MASTERS | Who.MEMBERS | Who.MACHINES:
            return f"@{who.name.lower()}"
        case Who.OWN_PODS:
            return str(cluster.networks.pods)
        case Who.API_CLIENTS | Who.HEALTH_CHECKS | Who.SERVICE_CLIENTS:
            return ""
        case other:
            assert_never(other)


def _state(
    cluster: Cluster, machine: Machine, facts: Facts, openings: list[tuple[str, str]]
) -> ComponentState:
    sets = {
        Who.MASTERS: cluster.masters,
        Who.MEMBERS: cluster.etcd_members,
        Who.MACHINES: cluster.machines,
    }
    listening = ", ".join(map(str, sorted({22, machine.ssh.port, *facts.ssh_ports})))
    ssh = f"tcp dport {{ {listening} }}"
    content = render(
        "firewall/firewall.nft.j2",
        table=TABLE,
        sets=[(who.name.lower(), [m.address for m in machines]) for who, machines in sets.items()],
        ssh=[_accept(ssh, str(network)) for network in cluster.firewall.ssh_from]
        or [_accept(ssh, "")],
        openings=[*openings, *_of_inventory(cluster)],
        short=facts.distribution.rejects_short,
    )
    rules = HostFile(RULES, content, mode=0o644)
    unit = HostFile(
        f"{paths.UNITS}/{UNIT}",
        render(f"firewall/{UNIT}.j2", cluster=cluster.name, rules=RULES, table=TABLE),
        mode=0o644,
    )
    return ComponentState(
        name="firewall",
        # nft learns the name `ipv6-icmp` from netbase's /etc/protocols.
        packages=facts.distribution.packages("nftables", "netbase"),
        directories=(Directory(paths.CONFIG),),
        files=(rules, unit),
        units=(Unit(UNIT, reload=True),),
        health=f"nft list table inet {TABLE} >/dev/null",
        cleanup=f"nft delete table inet {TABLE}",
    )


def _of_inventory(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Give the rules of `cluster.firewall.allow`. The inventory has checked their form."""
    for rule in cluster.firewall.allow:
        what, _, source = rule.partition(" from ")
        protocol, _, port = what.partition("/")
        yield _accept(f"{protocol} dport {port}", source), "of the inventory"


def _accept(match: str, source: str) -> str:
    return f"ip saddr {source} {match} accept" if source else f"{match} accept"
