"""Inventory -> the things that should exist in the account. Pure.

`steps` gives a step for every thing and every setting; `lacking` keeps those that are needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from provision.inventory import Draft
from provision.inventory.draft import HostEntry
from provision.machines.ec2 import policies
from provision.machines.ec2.instances import group_steps, machine_steps, size_step
from provision.machines.ec2.keys import (
    BUCKET,
    GATEWAY,
    GATEWAY_AT_VPC,
    GROUP,
    INTERNET_ROUTE,
    KEY_PAIR,
    LISTENER,
    LOAD_BALANCER,
    ROUTE_TABLE,
    TARGET_GROUP,
    TARGETS,
    VPC,
    Key,
    Kind,
    at_table,
)
from provision.machines.ec2.model import HostKey, Ref, Seen, Step, World, canonical
from provision.machines.ec2.names import (
    SIDES,
    names_of,
    shared,
    tagged,
    tags,
)
from provision.machines.ec2.placing import addresses, subnet_of, subnets, zones_of
from provision.machines.ec2.rules import rule_steps, security_groups
from provision.model import ports
from provision.model.cluster import Role

CLOSED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
FOR_LOAD_BALANCERS = {"kubernetes.io/role/elb": "1", "kubernetes.io/role/internal-elb": "1"}


def steps(
    draft: Draft,
    world: World,
    seen: Seen,
    keys: Mapping[str, HostKey],
    only: Collection[str] | None = None,
) -> Iterator[Step]:
    """Give all steps.

    Args:
        keys: machine's name -> host key of an instance that does not exist yet.
        only: of machines that do not exist yet, make only these, and leave the group as it is;
            None: make all.
    """
    hosts = [h for h in draft.hosts if only is None or h.name in only or h.name in seen.instances]
    yield from _network(draft, world)
    yield from security_groups(draft)
    yield from _identities(draft, world)
    yield from _bucket(draft, world)
    yield from _load_balancer(draft, seen, hosts)
    zones, where = zones_of(draft, seen), addresses(draft, seen)
    for host in hosts:
        name = host.name
        yield from machine_steps(draft, world, seen, host, zones[name], where[name], keys.get(name))
    if only is None and draft.ec2.group:
        yield from group_steps(draft, world, seen)
    elif only is None and GROUP in seen.ids:
        yield size_step(draft, seen)
    yield from rule_steps(draft, seen)


def lacking(everything: Iterable[Step], seen: Seen) -> tuple[Step, ...]:
    """Give the needed steps: their thing does not exist, or their setting differs."""
    return tuple(
        step
        for step in everything
        if (seen.settings.get(step.key) != step.sets if step.sets else step.key not in seen.ids)
    )


def _network(draft: Draft, world: World) -> Iterator[Step]:
    ec2 = draft.ec2
    if ec2.vpc is None:
        request = {"CidrBlock": str(ec2.network), **tagged(draft, VPC)}
        yield Step(VPC, "ec2", "create_vpc", request, "Vpc.VpcId", detail=str(ec2.network))
    gateway: Ref | str = world.gateway or Ref(GATEWAY)
    if not world.gateway:
        yield Step(
            GATEWAY,
            "ec2",
            "create_internet_gateway",
            tagged(draft, GATEWAY),
            "InternetGateway.InternetGatewayId",
        )
        yield Step(
            GATEWAY_AT_VPC,
            "ec2",
            "attach_internet_gateway",
            {"InternetGatewayId": gateway, "VpcId": Ref(VPC)},
        )
    yield Step(
        ROUTE_TABLE,
        "ec2",
        "create_route_table",
        {"VpcId": Ref(VPC), **tagged(draft, ROUTE_TABLE)},
        "RouteTable.RouteTableId",
    )
    yield Step(
        INTERNET_ROUTE,
        "ec2",
        "create_route",
        {
            "RouteTableId": Ref(ROUTE_TABLE),
            "DestinationCidrBlock": "0.0.0.0/0",
            "GatewayId": gateway,
        },
        after=() if world.gateway else (GATEWAY_AT_VPC,),
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
                **tagged(draft, key, **further),
            },
            "Subnet.SubnetId",
            detail=str(network),
        )
        yield Step(
            at_table(key),
            "ec2",
            "associate_route_table",
            {"RouteTableId": Ref(ROUTE_TABLE), "SubnetId": Ref(key)},
        )


def _identities(draft: Draft, world: World) -> Iterator[Step]:
    """The key pair; and for each side a role, its policy, and the profile with the role."""
    names = names_of(draft, world.account)
    if draft.ec2.key_pair is None:
        yield Step(
            KEY_PAIR,
            "ec2",
            "import_key_pair",
            {
                "KeyName": names.key_pair,
                "PublicKeyMaterial": world.public_key.encode(),
                **tagged(draft, KEY_PAIR),
            },
            "KeyName",
        )
    for side in SIDES:
        role = names.role(side)
        key, profile = Key(Kind.ROLE, side), Key(Kind.PROFILE, side)
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
            Key(Kind.ROLE_POLICY, side),
            "iam",
            "put_role_policy",
            {"RoleName": Ref(key), "PolicyName": "clusterctl", "PolicyDocument": policy},
            sets=canonical(policy),
        )
        if draft.ec2.ssh == "ssm":
            request = {"RoleName": Ref(key), "PolicyArn": policies.SSM}
            yield Step(Key(Kind.SESSION_MANAGER, side), "iam", "attach_role_policy", request)
        yield Step(
            profile,
            "iam",
            "create_instance_profile",
            {"InstanceProfileName": role, "Tags": tags(draft, profile)},
            "InstanceProfile.InstanceProfileName",
        )
        yield Step(
            Key(Kind.ROLE_IN_PROFILE, side),
            "iam",
            "add_role_to_instance_profile",
            {"InstanceProfileName": Ref(profile), "RoleName": Ref(key)},
        )


def _bucket(draft: Draft, world: World) -> Iterator[Step]:
    name = names_of(draft, world.account).bucket
    region = draft.ec2.region
    # S3 refuses the name of its default region.
    place = {} if region == "us-east-1" else {"LocationConstraint": region}
    yield Step(
        BUCKET,
        "s3",
        "create_bucket",
        {"Bucket": name, **({"CreateBucketConfiguration": place} if place else {})},
        detail=name,
    )
    bucket = {"Bucket": name, "ExpectedBucketOwner": world.account}

    def setting(what: str, action: str, sets: str, **request: object) -> Step:
        return Step(
            Key(Kind.BUCKET_SETTING, what),
            "s3",
            action,
            {**bucket, **request},
            after=(BUCKET,),
            sets=sets,
        )

    labels = tags(draft, BUCKET)
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
    # The policy demands TLS, but an endpoint in the inventory may have no TLS.
    if not draft.ec2.endpoint.startswith("http://"):
        policy = policies.of_bucket(name)
        yield setting("policy", "put_bucket_policy", canonical(policy), Policy=policy)


def _load_balancer(draft: Draft, seen: Seen, hosts: Iterable[HostEntry]) -> Iterator[Step]:
    name = names_of(draft).load_balancer
    yield Step(
        LOAD_BALANCER,
        "elbv2",
        "create_load_balancer",
        {
            "Name": name,
            "Type": "network",
            "Scheme": "internet-facing",
            "Subnets": [Ref(Key(Kind.SUBNET, zone)) for zone in draft.ec2.zones],
            "Tags": tags(draft, LOAD_BALANCER),
        },
        "LoadBalancers.0.LoadBalancerArn",
        after=(INTERNET_ROUTE,),
        detail="network",
    )
    yield _target_group(draft, name)
    forward = {"Type": "forward", "TargetGroupArn": Ref(TARGET_GROUP)}
    yield Step(
        LISTENER,
        "elbv2",
        "create_listener",
        {
            "LoadBalancerArn": Ref(LOAD_BALANCER),
            "Protocol": "TCP",
            "Port": ports.API,
            "DefaultActions": [forward],
            "Tags": tags(draft, LISTENER),
        },
        "Listeners.0.ListenerArn",
        detail=f"port {ports.API}",
    )
    masters = [h.name for h in hosts if Role.MASTER in h.roles]
    if absent := [name for name in masters if Key(Kind.TARGET, name) not in seen.ids]:
        yield _targets(absent)


def _target_group(draft: Draft, name: str) -> Step:
    return Step(
        TARGET_GROUP,
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
            "Tags": tags(draft, TARGET_GROUP),
        },
        "TargetGroups.0.TargetGroupArn",
        detail=f"healthy where {ports.API_MONITOR}/readyz answers",
    )


def _targets(masters: Sequence[str]) -> Step:
    return Step(
        TARGETS,
        "elbv2",
        "register_targets",
        {
            "TargetGroupArn": Ref(TARGET_GROUP),
            "Targets": [{"Id": Ref(Key(Kind.INSTANCE, name))} for name in masters],
        },
        # AWS accepts only running instances, and the source check waits until they run.
        after=tuple(Key(Kind.SOURCE_CHECK, name) for name in masters),
        detail=", ".join(masters),
    )
