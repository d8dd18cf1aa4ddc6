"""Inventory -> what there should be in the account. Pure.

`steps` gives everything, and what corrects what is there; `lacking` leaves out what is there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any, assert_never

from provision.desired.catalog import COMPONENTS
from provision.desired.model import Component, Port, Protocol, Who
from provision.inventory import Draft
from provision.inventory.draft import HostEntry
from provision.machines.ec2 import policies
from provision.machines.ec2.model import Ref, Rule, Seen, Step, Text, canonical
from provision.machines.ec2.names import (
    GROUPED,
    HOST_KEY,
    MASTERS,
    SIDES,
    WORKERS,
    names_of,
    shared,
    tags,
)
from provision.machines.ec2.user_data import VOLUME, cloud_config, joining
from provision.model import ports
from provision.model.cluster import Role, Settings
from provision.model.settings.ec2 import Ec2

SHARES = 16  # of the network: the first half for the inventory's machines, one for each zone
MOST_ZONES = SHARES // 2  # and the second for the Auto Scaling group's
FIRST_HOST = 5  # AWS keeps the first four and the last of each subnet
DEVICE = "/dev/sdf"
CLOSED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
EVERYTHING = (0, 65535)
WITH_PORTS = ("tcp", "udp", "icmp", "icmpv6")  # of others EC2 names none
VPC, SUBNET, ROUTES = "vpc", "subnet", "route table"
FOR_LOAD_BALANCERS = {"kubernetes.io/role/elb": "1", "kubernetes.io/role/internal-elb": "1"}


@dataclass(frozen=True)
class HostKey:
    """A machine's SSH host key, as OpenSSH writes it."""

    private: str
    public: str


@dataclass(frozen=True)
class World:
    """What the account says that the inventory cannot know.

    Attributes:
        account: its number.
        images: `masters`, `workers` -> AMI's id.
        roots: `masters`, `workers` -> name of the AMI's root device.
        public_key: of who may log in; empty where the inventory names a key pair.
        gateway: id of the internet gateway of a VPC that exists, if it has one.
    """

    account: str
    images: Mapping[str, str]
    roots: Mapping[str, str]
    public_key: str = ""
    gateway: str = ""


def zones_of(draft: Draft, seen: Seen) -> dict[str, str]:
    """Zone of each machine: that of its instance; that of its volume, which cannot leave it; the
    one that it had; else the one with the fewest machines of its side, in the inventory's order.
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
    """Zone and address of machines that are to be made anew."""
    ending = {n: (i.zone, i.private) for n, i in seen.leaving.items() if i.private}
    return {**ending, **seen.left}


def side_of(host: HostEntry) -> str:
    """Which security group, role and type: etcd's machines are as the masters."""
    return MASTERS if host.roles & {Role.MASTER, Role.ETCD} else WORKERS


def subnet_of(given: Settings, zone: str, *, group: bool = False) -> IPv4Network:
    """The zone's share of the network: of the inventory's machines, or of the group's."""
    index = given.ec2.zones.index(zone) + (MOST_ZONES if group else 0)
    return tuple(given.ec2.network.subnets(SHARES.bit_length() - 1))[index]


def addresses(draft: Draft, seen: Seen) -> dict[str, IPv4Address]:
    """Private address of each machine: the one that it has, or had; else that of its place in its
    zone, by the inventory's order, or the first that is free.

    They are chosen here, so that a machine that is made anew has the old one's.
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


def steps(
    draft: Draft,
    world: World,
    seen: Seen,
    keys: Mapping[str, HostKey],
    only: Collection[str] | None = None,
) -> Iterator[Step]:
    """All that there should be.

    Args:
        keys: of machines that are not there yet, by name.
        only: of machines that are not there yet, make these, and leave the group as it is;
            None: all.
    """
    hosts = [h for h in draft.hosts if only is None or h.name in only or h.name in seen.instances]
    yield from _network(draft, world)
    yield from _security_groups(draft)
    yield from _identities(draft, world)
    yield from _bucket(draft, world)
    yield from _load_balancer(draft, seen, hosts)
    zones, where = zones_of(draft, seen), addresses(draft, seen)
    for host in hosts:
        name = host.name
        yield from _machine(draft, world, seen, host, zones[name], where[name], keys.get(name))
    if only is None and draft.ec2.group:
        yield from _group(draft, world, seen)
    elif only is None and "group" in seen.ids:
        yield _size(draft, seen)
    yield from _rule_steps(draft, seen)


def lacking(everything: Iterable[Step], seen: Seen) -> tuple[Step, ...]:
    """Leave out what is there and as it should be."""
    return tuple(
        step
        for step in everything
        if (seen.settings.get(step.key) != step.sets if step.sets else step.key not in seen.ids)
    )


def _network(draft: Draft, world: World) -> Iterator[Step]:
    ec2 = draft.ec2
    if ec2.vpc is None:
        request = {"CidrBlock": str(ec2.network), **_tagged(draft, VPC)}
        yield Step(VPC, "ec2", "create_vpc", request, "Vpc.VpcId", detail=str(ec2.network))
    gateway: Ref | str = world.gateway or Ref("internet gateway")
    if not world.gateway:
        tagged = _tagged(draft, "internet gateway")
        yield Step(
            "internet gateway",
            "ec2",
            "create_internet_gateway",
            tagged,
            "InternetGateway.InternetGatewayId",
        )
        yield Step(
            "internet gateway at vpc",
            "ec2",
            "attach_internet_gateway",
            {"InternetGatewayId": gateway, "VpcId": Ref(VPC)},
        )
    tagged = _tagged(draft, ROUTES)
    yield Step(
        ROUTES,
        "ec2",
        "create_route_table",
        {"VpcId": Ref(VPC), **tagged},
        "RouteTable.RouteTableId",
    )
    yield Step(
        "route to the internet",
        "ec2",
        "create_route",
        {
            "RouteTableId": Ref(ROUTES),
            "DestinationCidrBlock": "0.0.0.0/0",
            "GatewayId": gateway,
        },
        after=() if world.gateway else ("internet gateway at vpc",),
    )
    for key, zone, group in subnets(draft):
        network = subnet_of(draft, zone, group=group)
        # A load balancer takes one subnet of each zone.
        further = {} if group else {**shared(draft), **FOR_LOAD_BALANCERS}
        yield Step(
            key,
            "ec2",
            "create_subnet",
            {
                "VpcId": Ref(VPC),
                "AvailabilityZone": zone,
                "CidrBlock": str(network),
                **_tagged(draft, key, **further),
            },
            "Subnet.SubnetId",
            detail=str(network),
        )
        yield Step(
            f"{key} at {ROUTES}",
            "ec2",
            "associate_route_table",
            {"RouteTableId": Ref(ROUTES), "SubnetId": Ref(key)},
        )


def subnets(given: Settings) -> Iterator[tuple[str, str, bool]]:
    """(key, zone, whether it is the Auto Scaling group's)."""
    for zone in given.ec2.zones:
        yield f"{SUBNET} {zone}", zone, False
    if given.ec2.group:
        for zone in given.ec2.zones:
            yield f"{SUBNET} {zone} group", zone, True


def rules(
    given: Settings, side: str, components: Iterable[Component] = COMPONENTS
) -> frozenset[Rule]:
    """What the machines of a side let in. Groups are keys."""
    ec2 = given.ec2
    from_masters, from_workers = (f"security group {s}" for s in SIDES)
    pods = str(given.networks.pods)
    result = {
        Rule("-1", EVERYTHING, group=from_masters),
        # Only what comes from a pod and goes to a pod has such an address.
        Rule("-1", EVERYTHING, network=pods),
    }
    if ec2.ssh != "ssm":
        result |= {Rule("tcp", (22, 22), network=str(network)) for network in ec2.ssh_from}
    if side == WORKERS:
        return frozenset({*result, Rule("-1", EVERYTHING, group=from_workers)})
    result.add(Rule("tcp", (22, 22), group=from_workers))
    if given.masters_schedulable:
        # Pods on masters are for everybody; etcd and kubelet ask for certificates all the same.
        result.add(Rule("-1", EVERYTHING, group=from_workers))
    for component in components:
        for port in component.ports:
            result.update(_openings(port, ec2, from_workers))
    return frozenset(result)


def _openings(port: Port, ec2: Ec2, from_workers: str) -> Iterator[Rule]:
    """The rules that open a component's port on masters. A VPC carries neither OSPF nor VRRP."""
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
                pass  # Masters and pods are let in by the rules for all ports.
            case Who.SERVICE_CLIENTS:
                pass  # The cloud controller opens them, on the machines behind a load balancer.
            case other:
                assert_never(other)


def _security_groups(draft: Draft) -> Iterator[Step]:
    for side in SIDES:
        key = f"security group {side}"
        yield Step(
            key,
            "ec2",
            "create_security_group",
            {
                "GroupName": names_of(draft).security_group(side),
                "Description": f"clusterctl: {side} of {draft.name}",
                "VpcId": Ref(VPC),
                **_tagged(draft, key, **shared(draft)),
            },
            "GroupId",
        )


def _rule_steps(draft: Draft, seen: Seen) -> Iterator[Step]:
    """What brings each security group from what it lets in to what it should."""
    for side in SIDES:
        key = f"security group {side}"
        wanted = {_with_id(rule, seen.ids) for rule in rules(draft, side)}
        there = seen.rules.get(key, frozenset())
        for word, action, changing in (
            ("opened in", "authorize_security_group_ingress", wanted - there),
            ("closed in", "revoke_security_group_ingress", there - wanted),
        ):
            if changing:
                permissions = [_permission(rule) for rule in sorted(changing, key=repr)]
                request = {"GroupId": Ref(key), "IpPermissions": permissions}
                detail = ", ".join(sorted({_ports(rule) for rule in changing}))
                yield Step(f"ports {word} {key}", "ec2", action, request, detail=detail)


def _with_id(rule: Rule, ids: Mapping[str, str]) -> Rule:
    return replace(rule, group=ids.get(rule.group, rule.group)) if rule.group else rule


def _permission(rule: Rule) -> dict[str, Any]:
    permission: dict[str, Any] = {"IpProtocol": rule.protocol}
    if rule.protocol in WITH_PORTS:
        permission |= {"FromPort": rule.ports[0], "ToPort": rule.ports[1]}
    if rule.network:
        return {**permission, "IpRanges": [{"CidrIp": rule.network}]}
    group = rule.group if rule.group.startswith("sg-") else Ref(rule.group)
    return {**permission, "UserIdGroupPairs": [{"GroupId": group}]}


def _ports(rule: Rule) -> str:
    return "all between machines" if rule.protocol == "-1" else f"{rule.ports[0]}/{rule.protocol}"


def _identities(draft: Draft, world: World) -> Iterator[Step]:
    """The key pair; and for each side a role, its policy, and the profile that carries it."""
    names = names_of(draft, world.account)
    if draft.ec2.key_pair is None:
        yield Step(
            "key pair",
            "ec2",
            "import_key_pair",
            {
                "KeyName": names.key_pair,
                "PublicKeyMaterial": world.public_key.encode(),
                **_tagged(draft, "key pair"),
            },
            "KeyName",
        )
    for side in SIDES:
        role, key, profile = names.role(side), f"role {side}", f"instance profile {side}"
        yield Step(
            key,
            "iam",
            "create_role",
            {
                "RoleName": role,
                "AssumeRolePolicyDocument": policies.assume(),
                "Description": f"clusterctl: {side} of {draft.name}",
                "Tags": tags(draft, key),
            },
            "Role.RoleName",
        )
        policy = policies.of_machines(draft, world.account, side)
        yield Step(
            f"policy of {key}",
            "iam",
            "put_role_policy",
            {"RoleName": Ref(key), "PolicyName": "clusterctl", "PolicyDocument": policy},
            sets=canonical(policy),
        )
        if draft.ec2.ssh == "ssm":
            request = {"RoleName": Ref(key), "PolicyArn": policies.SSM}
            yield Step(f"Session Manager for {key}", "iam", "attach_role_policy", request)
        yield Step(
            profile,
            "iam",
            "create_instance_profile",
            {"InstanceProfileName": role, "Tags": tags(draft, profile)},
            "InstanceProfile.InstanceProfileName",
        )
        yield Step(
            f"{key} in its profile",
            "iam",
            "add_role_to_instance_profile",
            {"InstanceProfileName": Ref(profile), "RoleName": Ref(key)},
        )


def _bucket(draft: Draft, world: World) -> Iterator[Step]:
    name = names_of(draft, world.account).bucket
    region = draft.ec2.region
    # us-east-1 is S3's own, and refuses to be named.
    place = {} if region == "us-east-1" else {"LocationConstraint": region}
    yield Step(
        "bucket",
        "s3",
        "create_bucket",
        {"Bucket": name, **({"CreateBucketConfiguration": place} if place else {})},
        detail=name,
    )
    bucket = {"Bucket": name, "ExpectedBucketOwner": world.account}

    def setting(what: str, action: str, sets: str, **request: object) -> Step:
        return Step(
            f"bucket's {what}", "s3", action, {**bucket, **request}, after=("bucket",), sets=sets
        )

    labels = tags(draft, "bucket")
    in_any_order = canonical({label["Key"]: label["Value"] for label in labels})
    yield setting("tags", "put_bucket_tagging", in_any_order, Tagging={"TagSet": labels})
    closed = dict.fromkeys(CLOSED, True)
    yield setting(
        "privacy",
        "put_public_access_block",
        canonical(closed),
        PublicAccessBlockConfiguration=closed,
    )
    versions = {"Status": "Enabled"}
    yield setting("versions", "put_bucket_versioning", "Enabled", VersioningConfiguration=versions)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    yield setting(
        "encryption",
        "put_bucket_encryption",
        "AES256",
        ServerSideEncryptionConfiguration={"Rules": [rule]},
    )
    # It asks for TLS: not where the inventory itself names APIs that are without.
    if not draft.ec2.endpoint.startswith("http://"):
        policy = policies.of_bucket(name)
        yield setting("policy", "put_bucket_policy", canonical(policy), Policy=policy)


def _load_balancer(draft: Draft, seen: Seen, hosts: Iterable[HostEntry]) -> Iterator[Step]:
    name = names_of(draft).load_balancer
    yield Step(
        "load balancer",
        "elbv2",
        "create_load_balancer",
        {
            "Name": name,
            "Type": "network",
            "Scheme": "internet-facing",
            "Subnets": [Ref(f"{SUBNET} {zone}") for zone in draft.ec2.zones],
            "Tags": tags(draft, "load balancer"),
        },
        "LoadBalancers.0.LoadBalancerArn",
        after=("route to the internet",),
        detail="network",
    )
    yield Step(
        "target group",
        "elbv2",
        "create_target_group",
        {
            "Name": name,
            "Protocol": "TCP",
            "Port": ports.API,
            "VpcId": Ref(VPC),
            "TargetType": "instance",
            # The monitor has no certificate: 200 while the machine's own apiserver is ready.
            "HealthCheckProtocol": "HTTP",
            "HealthCheckPort": str(ports.API_MONITOR),
            "HealthCheckPath": "/readyz",
            "HealthCheckIntervalSeconds": 5,
            "HealthCheckTimeoutSeconds": 3,
            "HealthyThresholdCount": 2,
            "UnhealthyThresholdCount": 2,
            "Tags": tags(draft, "target group"),
        },
        "TargetGroups.0.TargetGroupArn",
        detail=f"healthy where {ports.API_MONITOR}/readyz answers",
    )
    forward = {"Type": "forward", "TargetGroupArn": Ref("target group")}
    yield Step(
        "listener",
        "elbv2",
        "create_listener",
        {
            "LoadBalancerArn": Ref("load balancer"),
            "Protocol": "TCP",
            "Port": ports.API,
            "DefaultActions": [forward],
            "Tags": tags(draft, "listener"),
        },
        "Listeners.0.ListenerArn",
        detail=f"port {ports.API}",
    )
    masters = [h.name for h in hosts if Role.MASTER in h.roles]
    absent = [name for name in masters if f"target {name}" not in seen.ids]
    if absent:
        yield Step(
            "targets",
            "elbv2",
            "register_targets",
            {
                "TargetGroupArn": Ref("target group"),
                "Targets": [{"Id": Ref(f"instance {name}")} for name in absent],
            },
            # Only those that run are taken, and that is what this step has waited for.
            after=tuple(f"source check of {name}" for name in absent),
            detail=", ".join(absent),
        )


def _machine(
    draft: Draft,
    world: World,
    seen: Seen,
    host: HostEntry,
    zone: str,
    address: IPv4Address,
    key: HostKey | None,
) -> Iterator[Step]:
    ec2, side, there = draft.ec2, side_of(host), seen.instances.get(host.name)
    instance, volume = f"instance {host.name}", f"volume {host.name}"
    kind = ec2.master_type if side == MASTERS else ec2.worker_type
    has_etcd = Role.ETCD in host.roles
    if has_etcd:
        yield Step(
            volume,
            "ec2",
            "create_volume",
            {
                "AvailabilityZone": zone,
                "Size": ec2.etcd_disk,
                "VolumeType": "gp3",
                "Encrypted": True,
                "ClientToken": _token(draft, volume, key.public if key else ""),
                **_tagged(draft, volume),
            },
            "VolumeId",
            detail=f"{ec2.etcd_disk} GiB gp3 in {zone}, for etcd",
        )
    public = key.public if key else ""
    machine_tags = tags(draft, instance, **{HOST_KEY: public}, **shared(draft))
    spot = ec2.spot and side == WORKERS
    yield Step(
        instance,
        "ec2",
        "run_instances",
        {
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": _token(draft, instance, public),
            "ImageId": world.images[side],
            "InstanceType": kind,
            "KeyName": ec2.key_pair or Ref("key pair"),
            "IamInstanceProfile": {"Name": Ref(f"instance profile {side}")},
            "MetadataOptions": METADATA,
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "DeleteOnTermination": True,
                    "SubnetId": Ref(f"{SUBNET} {zone}"),
                    "PrivateIpAddress": str(address),
                    "AssociatePublicIpAddress": True,
                    "Groups": [Ref(f"security group {side}")],
                }
            ],
            "BlockDeviceMappings": [_root(world.roots[side], ec2.disk)],
            "TagSpecifications": [
                {"ResourceType": kind_of, "Tags": machine_tags}
                for kind_of in ("instance", "network-interface")
            ]
            + [{"ResourceType": "volume", "Tags": tags(draft, f"root of {host.name}")}],
            "UserData": _user_data(host.name, key or HostKey("", ""), volume if has_etcd else ""),
            **({"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}),
        },
        "Instances.0.InstanceId",
        once=("instance_terminated", seen.leaving[host.name].id)
        if host.name in seen.leaving
        else ("", ""),
        after=(f"role {side} in its profile", f"{SUBNET} {zone} at {ROUTES}")
        + ((volume,) if has_etcd else ()),
        detail=f"{kind} in {zone}{', spot' if spot else ''}",
    )
    if there and there.state in {"stopping", "stopped"}:
        request, stopped = {"InstanceIds": [there.id]}, ("instance_stopped", there.id)
        yield Step(f"start of {host.name}", "ec2", "start_instances", request, once=stopped)
    yield Step(
        f"source check of {host.name}",
        "ec2",
        "modify_instance_attribute",
        {"InstanceId": Ref(instance), "SourceDestCheck": {"Value": False}},
        after=(f"start of {host.name}",),
        once=("instance_running", instance),
        sets="off",
        detail="off, for the pods' own addresses",
    )
    if has_etcd:
        yield Step(
            f"{volume} at its machine",
            "ec2",
            "attach_volume",
            {"VolumeId": Ref(volume), "InstanceId": Ref(instance), "Device": DEVICE},
            after=(f"source check of {host.name}",),
            once=("volume_available", volume),
        )


METADATA = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"}


def _user_data(name: str, key: HostKey, volume: str) -> Text:
    text = cloud_config(name, host_private=key.private, host_public=key.public, volume=bool(volume))
    before, _, after = text.partition(VOLUME)
    return Text((before, Ref(volume), after) if volume else (text,))


def _root(device: str, size: int) -> dict[str, Any]:
    disk = {"VolumeSize": size, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    return {"DeviceName": device, "Ebs": disk}


def _tagged(draft: Draft, key: str, **further: str) -> dict[str, Any]:
    """The argument of EC2's own calls that tags what they make as they make it."""
    kinds = {
        VPC: "vpc",
        "internet gateway": "internet-gateway",
        ROUTES: "route-table",
        "key pair": "key-pair",
        SUBNET: "subnet",
        "security group": "security-group",
        "volume": "volume",
        "launch template": "launch-template",
    }
    kind = next(kind for word, kind in kinds.items() if key == word or key.startswith(f"{word} "))
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags(draft, key, **further)}]}


def _token(draft: Draft, key: str, salt: str) -> str:
    """ClientToken: the same for the same thing, also in a run after a crash; 64 at most."""
    text = json.dumps([draft.name, draft.ec2.owner, key, salt])
    return hashlib.sha256(text.encode()).hexdigest()


def _group(draft: Draft, world: World, seen: Seen) -> Iterator[Step]:
    """A launch template, and the Auto Scaling group that makes workers from it."""
    ec2, key = draft.ec2, "launch template"
    data: dict[str, Any] = {
        "ImageId": world.images[WORKERS],
        "InstanceType": ec2.worker_type,
        "KeyName": ec2.key_pair or Ref("key pair"),
        "IamInstanceProfile": {"Name": Ref(f"instance profile {WORKERS}")},
        "MetadataOptions": METADATA,
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "DeleteOnTermination": True,
                "AssociatePublicIpAddress": True,
                "Groups": [Ref(f"security group {WORKERS}")],
            }
        ],
        "BlockDeviceMappings": [_root(world.roots[WORKERS], ec2.disk)],
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": tags(draft, GROUPED, **further)}
            for kind, further in (
                ("instance", shared(draft)),
                ("volume", {}),
                ("network-interface", {}),
            )
        ],
    }
    if ec2.spot:
        data["InstanceMarketOptions"] = {"MarketType": "spot"}
    names = names_of(draft, world.account)
    # This once boto3 does not encode it.
    data["UserData"] = base64.b64encode(joining(draft, names.bucket).encode()).decode()
    name = names.group
    digest = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
    body = {"LaunchTemplateName": name, "VersionDescription": digest, "LaunchTemplateData": data}
    if key in seen.ids:
        yield Step(f"version of {key}", "ec2", "create_launch_template_version", body, sets=digest)
    else:
        yield Step(
            key,
            "ec2",
            "create_launch_template",
            {**body, **_tagged(draft, key)},
            "LaunchTemplate.LaunchTemplateId",
        )
    if "group" in seen.ids:
        yield _size(draft, seen)
        return
    inside = [Ref(f"{SUBNET} {zone} group") for zone in ec2.zones]
    zones = tuple(part for ref in inside for part in (",", ref))[1:]
    yield Step(
        "group",
        "autoscaling",
        "create_auto_scaling_group",
        {
            "AutoScalingGroupName": name,
            **size_of(ec2.group),
            "LaunchTemplate": {"LaunchTemplateId": Ref(key), "Version": "$Latest"},
            "VPCZoneIdentifier": Text(zones),
            "Tags": [
                {**tag, "PropagateAtLaunch": False, "ResourceId": name, "ResourceType": RESOURCE}
                for tag in tags(draft, "group")
            ],
        },
        after=(
            f"role {WORKERS} in its profile",
            *(f"{SUBNET} {zone} group at {ROUTES}" for zone in ec2.zones),
        ),
        detail=f"{ec2.group} x {ec2.worker_type}{', spot' if ec2.spot else ''}",
    )


def _size(draft: Draft, seen: Seen) -> Step:
    """Bring the group to the inventory's size, whoever has given it another."""
    size = draft.ec2.group
    return Step(
        "size of group",
        "autoscaling",
        "update_auto_scaling_group",
        {"AutoScalingGroupName": names_of(draft).group, **size_of(size)},
        sets=str(size),
        detail=f"{seen.settings.get('size of group', '?')} -> {size} workers, as the inventory says",
    )


def size_of(workers: int) -> dict[str, int]:
    """The arguments that give a group a size."""
    return {"MinSize": workers, "MaxSize": workers, "DesiredCapacity": workers}


RESOURCE = "auto-scaling-group"
