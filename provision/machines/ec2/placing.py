"""The place of each machine: its zone, its subnet and its private address. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from provision.inventory import Draft
from provision.inventory.draft import HostEntry
from provision.machines.ec2.keys import (
    Key,
    Kind,
)
from provision.machines.ec2.model import Seen
from provision.machines.ec2.names import (
    MASTERS,
    WORKERS,
)
from provision.model.cluster import Role, Settings

# The network has 16 shares, one for each zone: the first half for the inventory's machines, the
# second half for those of the Auto Scaling group.
SHARES = 16
MOST_ZONES = SHARES // 2
FIRST_HOST = 5  # AWS keeps the first four addresses and the last one of each subnet


def zones_of(draft: Draft, seen: Seen) -> dict[str, str]:
    """Choose the zone of each machine, in the inventory's order.

    A machine gets the zone of its instance, else of its volume, which cannot move, else the zone
    that it had before, else the zone with the fewest machines of its side.
    """
    kept = {
        **{name: zone for name, (zone, _) in _before(seen).items()},
        **seen.volumes,
        **{name: instance.zone for name, instance in seen.instances.items()},
    }
    zones = draft.ec2.zones
    result = {h.name: kept[h.name] for h in draft.hosts if kept.get(h.name) in zones}
    sides = {host.name: side_of(host) for host in draft.hosts}
    for name, side in sides.items():
        if name not in result:
            alike = [zone for other, zone in result.items() if sides[other] == side]
            result[name] = min(zones, key=alike.count)
    return result


def _before(seen: Seen) -> dict[str, tuple[str, str]]:
    """Give zone and address of machines that will be made again."""
    ending = {n: (i.zone, i.private) for n, i in seen.leaving.items() if i.private}
    return {**ending, **seen.left}


def side_of(host: HostEntry) -> str:
    """Give the side. It decides security group, role and type. Machines with etcd count as masters.

    Returns:
        `masters` or `workers`.
    """
    return MASTERS if host.roles & {Role.MASTER, Role.ETCD} else WORKERS


def subnet_of(given: Settings, zone: str, *, group: bool = False) -> IPv4Network:
    """Give the zone's share of the network, for the inventory's machines or for the group's."""
    index = given.ec2.zones.index(zone) + (MOST_ZONES if group else 0)
    return tuple(given.ec2.network.subnets(SHARES.bit_length() - 1))[index]


def addresses(draft: Draft, seen: Seen) -> dict[str, IPv4Address]:
    """Choose the private address of each machine.

    A machine gets the address that it has or had, else the address of its position in its zone, by
    the inventory's order, else the next free address. So a machine that is made again keeps its
    address.
    """
    zones = zones_of(draft, seen)
    subnets = {host.name: subnet_of(draft, zones[host.name]) for host in draft.hosts}
    result = {
        name: IPv4Address(instance.private)
        for name, instance in seen.instances.items()
        if instance.private
    }
    for name, (_, private) in _before(seen).items():
        address = IPv4Address(private)
        free = name not in result and address not in result.values()
        if free and name in subnets and address in subnets[name]:
            result[name] = address
    taken = {*result.values(), *(IPv4Address(private) for _, private in _before(seen).values())}
    for host in draft.hosts:
        if host.name in result:
            continue
        subnet = subnets[host.name]
        alike = [name for name, zone in zones.items() if zone == zones[host.name]]
        pool = [subnet[number] for number in range(FIRST_HOST, subnet.num_addresses - 1)]
        place = alike.index(host.name)
        ordered = (*pool[place:], *pool[:place])
        result[host.name] = next(address for address in ordered if address not in taken)
        taken.add(result[host.name])
    return {host.name: result[host.name] for host in draft.hosts}


def subnets(given: Settings) -> Iterator[tuple[Key, str, bool]]:
    """Give (key, zone, whether it is for the Auto Scaling group)."""
    for zone in given.ec2.zones:
        yield Key(Kind.SUBNET, zone), zone, False
    if given.ec2.group:
        for zone in given.ec2.zones:
            yield Key(Kind.GROUP_SUBNET, zone), zone, True
