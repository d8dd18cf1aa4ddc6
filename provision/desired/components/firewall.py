"""The host's firewall, where the inventory wants one: a table of ours, and nobody else's rules."""

from __future__ import annotations

from dataclasses import dataclass

from provision.desired.model import Component, ComponentState, Directory, HostFile, Unit
from provision.desired.packages import of_distribution
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.trust import Trust

TABLE = "clusterctl-firewall"
UNIT = "clusterctl-firewall.service"
RULES = f"{paths.CONFIG}/firewall.nft"

# Rules that nobody can get past again are gone after three minutes, whatever becomes of who put them
# there; and with the next boot, since only rules that somebody has got past are enabled.
_GUARD = "clusterctl-firewall-undo"
UNDO = f"systemctl --quiet disable --now {UNIT}"
DISARM = f"systemctl stop {_GUARD}.timer 2>/dev/null; true"
ARM = (
    f"{DISARM}; systemd-run --quiet --collect --on-active=180 --unit={_GUARD} {UNDO} && "
    f"{{ systemctl --quiet disable {UNIT} 2>/dev/null; ! systemctl --quiet is-enabled {UNIT}; }}"
)
CONFIRM = f"systemctl --quiet enable {UNIT} && {{ {DISARM}; }}"
# After an ARM that was for nothing: what was in force stays.
STAY = f"! systemctl --quiet is-active {UNIT} || systemctl --quiet enable {UNIT}; {DISARM}"

MASTERS, MEMBERS, MACHINES = "masters", "members", "machines"


@dataclass(frozen=True)
class Opening:
    """A port that is let in.

    Attributes:
        on: the machines that listen there.
        source: who may come: one of the sets of machines, or empty for anybody.
    """

    port: int
    what: str
    on: str
    source: str = ""


OPENINGS = (
    Opening(ports.API, "kube-apiserver", on=MASTERS),
    Opening(ports.API_MONITOR, "HAProxy's monitor", on=MASTERS),
    Opening(ports.REGISTRY, "registry", on=MASTERS, source=MACHINES),
    Opening(ports.ETCD_CLIENT, "etcd, from apiservers", on=MEMBERS, source=MASTERS),
    Opening(ports.ETCD_CLIENT, "etcd, from members", on=MEMBERS, source=MEMBERS),
    Opening(ports.ETCD_PEER, "etcd, from members", on=MEMBERS, source=MEMBERS),
    # Pods of other nodes come with their node's address.
    Opening(ports.KUBELET, "kubelet", on=MACHINES, source=MACHINES),
    Opening(ports.KUBE_PROXY_HEALTH, "kube-proxy's health", on=MACHINES),
    Opening(ports.ARTIFACTS, "artifacts, while they are copied", on=MACHINES, source=MACHINES),
)


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    sets = {
        MASTERS: cluster.masters,
        MEMBERS: cluster.etcd_members,
        MACHINES: cluster.machines,
    }
    openings = [
        (_accept(f"tcp dport {o.port}", f"@{o.source}" if o.source else ""), o.what)
        for o in OPENINGS
        if machine in sets[o.on]
    ]
    if machine.is_node:
        kubelet = _accept(f"tcp dport {ports.KUBELET}", str(cluster.networks.pods))
        openings.append((kubelet, "kubelet, from this node's own pods"))
        openings.append((_accept("tcp dport 30000-32767", ""), "health of Services' nodes"))
        if cluster.networks.plugin == "routed":
            openings.append((_accept("meta l4proto 89", f"@{MACHINES}"), "OSPF"))
    if machine.is_master and cluster.api.vip:
        openings.append((_accept("meta l4proto 112", f"@{MASTERS}"), "VRRP"))
    for rule in cluster.firewall.allow:
        what, _, source = rule.partition(" from ")
        protocol, _, port = what.partition("/")
        openings.append((_accept(f"{protocol} dport {port}", source), "of the inventory"))
    listening = ", ".join(map(str, sorted({22, machine.ssh.port, *facts.ssh_ports})))
    ssh = f"tcp dport {{ {listening} }}"
    content = render(
        "firewall/firewall.nft.j2",
        table=TABLE,
        sets=[(name, [m.address for m in machines]) for name, machines in sets.items()],
        ssh=[_accept(ssh, str(network)) for network in cluster.firewall.ssh_from]
        or [_accept(ssh, "")],
        openings=openings,
    )
    rules = HostFile(RULES, content, mode=0o644)
    unit = HostFile(
        f"{paths.UNITS}/{UNIT}",
        render(f"firewall/{UNIT}.j2", cluster=cluster.name, rules=RULES, table=TABLE),
        mode=0o644,
    )
    return ComponentState(
        name="firewall",
        packages=of_distribution(facts, "nftables"),
        directories=(Directory(paths.CONFIG),),
        files=(rules, unit),
        units=(Unit(UNIT, reload=True),),
        health=f"nft list table inet {TABLE} >/dev/null",
        cleanup=f"nft delete table inet {TABLE}",
    )


def _accept(match: str, source: str) -> str:
    return f"ip saddr {source} {match} accept" if source else f"{match} accept"


FIREWALL = Component(
    "firewall",
    "just the ports that are needed, from where they are needed",
    lambda cluster, _: cluster.firewall.enabled,
    _state,
)
