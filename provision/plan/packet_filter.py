"""Which rule of a machine's own packet filter stops traffic that the cluster needs. Pure.

A drop in any base chain is final in nftables: no table of clusterctl can let the packet in again.
A rule whose condition is not known never counts as a drop, but counts as an accept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from provision.desired.catalog import COMPONENTS
from provision.desired.model import Protocol, Who
from provision.model.cluster import Cluster, Machine
from provision.model.commands import shell
from provision.model.packet_filter import Action, Chain, Command, Field, Hook, Match, Rule

_NUMBERS = {"tcp": "6", "udp": "17", "ospf": "89", "ospfigp": "89", "vrrp": "112"}
_DOCKERS = "DOCKER-USER"
_POD_BRIDGE = "cni0"
_DEEPEST = 16


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection. `what` says what needs it."""

    hook: Hook
    source: IPv4Address
    destination: IPv4Address
    what: str
    protocol: str = "tcp"
    port: int = 0
    enters: str = ""
    leaves: str = ""


@dataclass(frozen=True)
class Stop:
    """The chain that stops a packet, and the rule; no rule: its policy."""

    chain: Chain
    rule: Rule | None
    packet: Packet


def needed(cluster: Cluster, machine: Machine, interface: str) -> Iterator[Packet]:
    """Give the packets that must reach a machine, by its components' ports, and its pods."""
    pods = IPv4Address(int(cluster.networks.pods.network_address) + 2)
    other_pods = IPv4Address(int(cluster.networks.pods.broadcast_address) - 2)
    groups = {
        Who.MASTERS: cluster.masters,
        Who.MEMBERS: cluster.etcd_members,
        Who.MACHINES: cluster.machines,
        Who.API_CLIENTS: cluster.machines,
    }
    for component in COMPONENTS:
        for port in component.ports:
            if not component.opens(cluster, machine, port):
                continue
            for allow in port.allow:
                sources = [
                    (m.address, interface) for m in groups.get(allow.who, ()) if m != machine
                ]
                if allow.who is Who.OWN_PODS:
                    sources = [(pods, _POD_BRIDGE)]
                protocol = "tcp" if port.protocol is Protocol.TCP else _protocol(port.protocol)
                for source, enters in sources:
                    what = f"{port.what} (port {port.number})" if port.number else port.what
                    yield Packet(
                        Hook.INPUT, source, machine.address, what, protocol, port.number, enters
                    )
    if machine.is_node and cluster.networks.plugin == "routed":
        what = "traffic of pods"
        yield Packet(
            Hook.FORWARD, pods, other_pods, what, port=53, enters=_POD_BRIDGE, leaves=interface
        )
        yield Packet(
            Hook.FORWARD, other_pods, pods, what, port=53, enters=interface, leaves=_POD_BRIDGE
        )


def _protocol(protocol: Protocol) -> str:
    """The protocol's number, from its words in nftables' syntax."""
    last = protocol.value.split()[-1]
    return _NUMBERS.get(last, last)


def stops(chains: tuple[Chain, ...], packets: Iterator[Packet]) -> list[Stop]:
    """Find the first packet that each base chain stops."""
    found: dict[tuple[Command, str, str], Stop] = {}
    base = [chain for chain in chains if chain.hook]
    for packet in packets:
        for chain in base:
            key = chain.command, chain.table, chain.name
            if chain.hook is packet.hook and key not in found:
                by_name = {
                    c.name: c
                    for c in chains
                    if (c.command, c.table) == (chain.command, chain.table)
                }
                action, rule = _walk(chain, packet, by_name, 0)
                if action is Action.DROP or (action is Action.CONTINUE and chain.drops):
                    found[key] = Stop(chain, rule, packet)
    return list(found.values())


def _walk(
    chain: Chain, packet: Packet, by_name: dict[str, Chain], depth: int
) -> tuple[Action, Rule | None]:
    """Follow a packet through a chain: ACCEPT, DROP, or CONTINUE at its end."""
    for rule in chain.rules:
        matches = [_matches(match, packet) for match in rule.matches]
        if False in matches:
            continue
        sure = None not in matches
        action: Action = rule.action
        last: Rule | None = rule
        if action in {Action.JUMP, Action.GOTO}:
            action, last = _jump(rule, packet, by_name, depth)
        if action is Action.ACCEPT or (action is Action.DROP and sure):
            return action, last
        if sure and (rule.action is Action.GOTO or action is Action.RETURN):
            break
    return Action.CONTINUE, None


def _jump(
    rule: Rule, packet: Packet, by_name: dict[str, Chain], depth: int
) -> tuple[Action, Rule | None]:
    target = by_name.get(rule.target)
    # An unknown target may accept. The kernel refuses deeper jumps.
    if target is None or depth > _DEEPEST:
        return Action.ACCEPT, rule
    return _walk(target, packet, by_name, depth + 1)


def _matches(match: Match, packet: Packet) -> bool | None:
    """Whether a condition holds; None: it is not known."""
    if match.field is Field.UNKNOWN:
        return None
    if match.field is Field.NEVER:
        return False
    if match.field in {Field.SOURCE, Field.DESTINATION}:
        address = packet.source if match.field is Field.SOURCE else packet.destination
        found = _within(address, match.values)
        return None if found is None else found is not match.negated
    value = {
        Field.PROTOCOL: packet.protocol,
        Field.PORT: str(packet.port),
        Field.INPUT: packet.enters,
        Field.OUTPUT: packet.leaves,
        Field.STATE: "new",
    }[match.field]
    return _holds(match, value) is not match.negated


def _holds(match: Match, value: str) -> bool:
    if match.field is Field.PORT:
        return any(_in_range(int(value), wanted) for wanted in match.values)
    if match.field is Field.PROTOCOL:
        return bool({"all", "0"} & {*match.values}) or _NUMBERS.get(value, value) in {
            _NUMBERS.get(wanted, wanted) for wanted in match.values
        }
    if match.field in {Field.INPUT, Field.OUTPUT}:
        return any(
            value.startswith(w[:-1]) if w.endswith(("+", "*")) else value == w for w in match.values
        )
    return value in match.values


def _in_range(port: int, wanted: str) -> bool:
    first, _, last = wanted.partition("-")
    names = {"ssh": "22", "http": "80", "https": "443", "domain": "53"}
    first = names.get(first, first)
    if not first.isdecimal():
        return False
    return int(first) <= port <= (int(last) if last.isdecimal() else int(first))


def _within(address: IPv4Address, values: tuple[str, ...]) -> bool | None:
    with suppress(ValueError):
        return any(address in IPv4Network(value, strict=False) for value in values)
    return None


def opening(stop: Stop, chains: tuple[Chain, ...], cluster: Cluster) -> str:
    """The command that lets the cluster's traffic in: rules before those that stop it."""
    chain, pods = stop.chain, cluster.networks.pods
    name = chain.name
    if chain.hook is Hook.FORWARD and any(
        c.name == _DOCKERS and c.command is chain.command for c in chains
    ):
        name = _DOCKERS  # Docker sets its own chains and FORWARD's policy again at each start
    sources = [*(str(machine.address) for machine in cluster.machines), str(pods)]
    if chain.command is Command.NFT:
        insert = ("nft", "insert", "rule", *chain.table.split(), chain.name)
        if chain.hook is Hook.FORWARD:
            allow = (shell(*insert, "ip", end, pods, "accept") for end in ("saddr", "daddr"))
            return " && ".join(allow)
        return shell(*insert, "ip", "saddr", f"{{ {', '.join(sources)} }}", "accept")
    rules = (chain.command.value, "-I", name)
    if chain.hook is Hook.FORWARD:
        return " && ".join(shell(*rules, end, pods, "-j", "ACCEPT") for end in ("-s", "-d"))
    return shell(*rules, "-s", ",".join(sources), "-j", "ACCEPT")
