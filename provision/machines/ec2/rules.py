"""The traffic that each security group allows; the steps that open and close its ports. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, assert_never

from provision.desired.catalog import COMPONENTS
from provision.desired.model import Component, Port, Protocol, Who
from provision.inventory import Draft
from provision.machines.ec2.keys import (
    VPC,
    Key,
    Kind,
)
from provision.machines.ec2.model import Ref, Rule, Seen, Step
from provision.machines.ec2.names import (
    SIDES,
    WORKERS,
    names_of,
    shared,
    tagged,
)
from provision.model.cluster import Settings
from provision.model.settings.ec2 import Ec2

EVERYTHING = (0, 65535)
WITH_PORTS = ("tcp", "udp", "icmp", "icmpv6")  # EC2 has no ports of other protocols


def security_groups(draft: Draft) -> Iterator[Step]:
    for side in SIDES:
        key = Key(Kind.SECURITY_GROUP, side)
        yield Step(
            key,
            "ec2",
            "create_security_group",
            {
                "GroupName": names_of(draft).security_group(side),
                "Description": f"clusterctl: {side} of {draft.name}",
                "VpcId": Ref(VPC),
                **tagged(draft, key, **shared(draft)),
            },
            "GroupId",
        )


def rules(
    given: Settings, side: str, components: Iterable[Component] = COMPONENTS
) -> frozenset[Rule]:
    """Give the rules of a side's security group. Rules name other groups by their keys."""
    ec2 = given.ec2
    from_masters, from_workers = (Key(Kind.SECURITY_GROUP, s) for s in SIDES)
    pods = str(given.networks.pods)
    result = {
        Rule("-1", EVERYTHING, group=from_masters),
        # Only packets between pods have such an address.
        Rule("-1", EVERYTHING, network=pods),
    }
    if ec2.ssh != "ssm":
        result |= {Rule("tcp", (22, 22), network=str(network)) for network in ec2.ssh_from}
    if side == WORKERS:
        return frozenset({*result, Rule("-1", EVERYTHING, group=from_workers)})
    result.add(Rule("tcp", (22, 22), group=from_workers))
    if given.masters_schedulable:
        # Every machine may reach pods on masters; etcd and kubelet still demand certificates.
        result.add(Rule("-1", EVERYTHING, group=from_workers))
    for component in components:
        for port in component.ports:
            result.update(_openings(port, ec2, from_workers))
    return frozenset(result)


def _openings(port: Port, ec2: Ec2, from_workers: Key) -> Iterator[Rule]:
    """Give the rules that open a component's port on masters. A VPC has no OSPF and no VRRP."""
    if port.protocol is not Protocol.TCP:
        return
    numbers = (port.number, port.last or port.number)
    for allow in port.allow:
        match allow.who:
            case Who.MACHINES:
                yield Rule("tcp", numbers, group=from_workers)
            case Who.API_CLIENTS:
                yield Rule("tcp", numbers, group=from_workers)
                # A network load balancer keeps the clients' addresses.
                for network in (*ec2.api_from, ec2.network):
                    yield Rule("tcp", numbers, network=str(network))
            case Who.HEALTH_CHECKS:
                yield Rule("tcp", numbers, network=str(ec2.network))
            case Who.MASTERS | Who.MEMBERS | Who.OWN_PODS:
                pass  # The rules for all ports allow masters and pods.
            case Who.SERVICE_CLIENTS:
                pass  # The cloud controller opens them, on the machines behind a load balancer.
            case other:
                assert_never(other)


def rule_steps(draft: Draft, seen: Seen) -> Iterator[Step]:
    """Give the steps that open and close ports of each security group, by its rules."""
    for side in SIDES:
        key = Key(Kind.SECURITY_GROUP, side)
        wanted = {_with_id(rule, seen.ids) for rule in rules(draft, side)}
        there = seen.rules.get(key, frozenset())
        for kind, action, changing in (
            (Kind.PORTS_OPENED, "authorize_security_group_ingress", wanted - there),
            (Kind.PORTS_CLOSED, "revoke_security_group_ingress", there - wanted),
        ):
            if changing:
                permissions = [_permission(rule) for rule in sorted(changing, key=repr)]
                request = {"GroupId": Ref(key), "IpPermissions": permissions}
                detail = ", ".join(sorted({_ports(rule) for rule in changing}))
                yield Step(Key(kind, side), "ec2", action, request, detail=detail)


def _with_id(rule: Rule, ids: Mapping[Key, str]) -> Rule:
    group = rule.group
    return replace(rule, group=ids.get(group, group)) if isinstance(group, Key) else rule


def _permission(rule: Rule) -> dict[str, Any]:
    permission: dict[str, Any] = {"IpProtocol": rule.protocol}
    if rule.protocol in WITH_PORTS:
        permission |= {"FromPort": rule.ports[0], "ToPort": rule.ports[1]}
    if rule.network:
        return {**permission, "IpRanges": [{"CidrIp": rule.network}]}
    group = Ref(rule.group) if isinstance(rule.group, Key) else rule.group
    return {**permission, "UserIdGroupPairs": [{"GroupId": group}]}


def _ports(rule: Rule) -> str:
    return "all between machines" if rule.protocol == "-1" else f"{rule.ports[0]}/{rule.protocol}"
