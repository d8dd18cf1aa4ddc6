"""Find the cluster's things in the account, by tags and names. Only reads, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from provision.aws.account import Account, code_of, in_words
from provision.machines.ec2 import keys
from provision.machines.ec2.desired import CLOSED
from provision.machines.ec2.keys import Key, Kind
from provision.machines.ec2.model import Instance, Rule, Seen, canonical
from provision.machines.ec2.names import CLUSTER, HOST_KEY, KEY, OWNER, SIDES, Names, cluster_tag
from provision.machines.ec2.rules import WITH_PORTS
from provision.model.cluster import Settings
from provision.model.errors import MachinesError

AT_ONCE = 12
LEAVING = "shutting-down"
NOT_ENDED = ("pending", "running", "stopping", "stopped", LEAVING)
_ABSENT = {
    "NoSuchEntity", "LoadBalancerNotFound", "TargetGroupNotFound", "404", "NoSuchBucket",
    "NoSuchTagSet", "NoSuchBucketPolicy", "NoSuchPublicAccessBlockConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError",
}  # fmt: skip


@dataclass
class _Sight:
    """Collects the readers' results; each reader fills its own keys."""

    account: Account
    given: Settings
    names: Names
    ids: dict[Key, str] = field(default_factory=dict)
    owners: dict[Key, tuple[str, str]] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    leaving: dict[str, Instance] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    rules: dict[Key, frozenset[Rule]] = field(default_factory=dict)
    settings: dict[Key, str] = field(default_factory=dict)
    load_balancer: str = ""
    associations: dict[str, set[str]] = field(default_factory=dict)  # table's -> subnets' ids
    attachments: dict[str, set[str]] = field(default_factory=dict)  # volume's -> instances' ids
    targets: set[str] = field(default_factory=set)  # instances' ids

    def found(self, key: Key, id_: str, tags: Mapping[str, str]) -> None:
        self.ids[key] = id_
        self.owners[key] = (tags.get(CLUSTER, ""), tags.get(OWNER, ""))

    def tagged(self, action: str, items: str) -> list[tuple[Key, dict[str, str], dict[str, Any]]]:
        """List (key, tags, description) of EC2's things of one kind with this cluster's tag."""
        ours = [{"Name": f"tag:{CLUSTER}", "Values": [self.given.name]}]
        things = self.account.call("ec2", action, Filters=ours)[items]
        return [(key_of(t := tags_of(thing)), t, thing) for thing in things]


def look(account: Account, given: Settings, names: Names) -> Seen:
    """Look for everything that a cluster of this name can have.

    Raises:
        MachinesError: names every call that failed: no rights, no credentials, no connection.
    """
    sight = _Sight(account, given, names)
    problems: list[MachinesError] = []

    def read(reader: Callable[[_Sight], None]) -> None:
        try:
            reader(sight)
        except (ClientError, BotoCoreError) as error:
            action = getattr(error, "operation_name", reader.__name__.strip("_"))
            problems.append(in_words(error, given.name, action))

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        list(pool.map(read, _READERS))
    if problems:
        messages = sorted({problem.message for problem in problems})
        hint = problems[0].hint
        if len(messages) == 1:
            raise MachinesError(messages[0], hint=hint)
        lines = "\n".join(f"  {message}" for message in messages)
        raise MachinesError(f"the AWS account cannot be read:\n{lines}", hint=hint)
    _join(sight)
    return Seen(
        ids=sight.ids,
        owners=sight.owners,
        instances=sight.instances,
        leaving=sight.leaving,
        volumes=sight.volumes,
        rules=sight.rules,
        settings=sight.settings,
        load_balancer=sight.load_balancer,
    )


def tags_of(thing: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags") or ()}


def key_of(tags: Mapping[str, str]) -> Key:
    """Read the key of a thing from its tags."""
    return keys.read(tags.get(KEY, ""))


def _join(sight: _Sight) -> None:
    """Add the keys that follow only from several answers together."""
    by_id = {id_: key for key, id_ in sight.ids.items()}
    for subnet in sight.associations.get(sight.ids.get(keys.ROUTE_TABLE, ""), ()):
        if (key := by_id.get(subnet)) and key.kind in keys.AT_TABLE:
            sight.ids[keys.at_table(key)] = ""
    for name, instance in sight.instances.items():
        volume = sight.ids.get(Key(Kind.VOLUME, name))
        if volume and instance.id in sight.attachments.get(volume, ()):
            sight.ids[Key(Kind.ATTACHMENT, name)] = ""
        if instance.id in sight.targets:
            sight.ids[Key(Kind.TARGET, name)] = ""


def _network(sight: _Sight) -> None:
    if sight.given.ec2.vpc:
        sight.ids[keys.VPC] = sight.given.ec2.vpc
    for key, tags, vpc in sight.tagged("describe_vpcs", "Vpcs"):
        sight.found(key, vpc["VpcId"], tags)


def _gateway(sight: _Sight) -> None:
    listed = sight.tagged("describe_internet_gateways", "InternetGateways")
    for key, tags, gateway in listed:
        sight.found(key, gateway["InternetGatewayId"], tags)
        if gateway.get("Attachments"):
            sight.ids[keys.GATEWAY_AT_VPC] = ""


def _subnets(sight: _Sight) -> None:
    for key, tags, subnet in sight.tagged("describe_subnets", "Subnets"):
        sight.found(key, subnet["SubnetId"], tags)


def _route_tables(sight: _Sight) -> None:
    for key, tags, table in sight.tagged("describe_route_tables", "RouteTables"):
        id_ = table["RouteTableId"]
        sight.found(key, id_, tags)
        sight.associations[id_] = {a.get("SubnetId", "") for a in table["Associations"]}
        if any(r.get("DestinationCidrBlock") == "0.0.0.0/0" for r in table["Routes"]):
            sight.ids[keys.INTERNET_ROUTE] = ""


def security_groups_of_services(account: Account, cluster: str) -> list[Any]:
    """List the security groups that the cloud controller made, for load balancers."""
    owned = [{"Name": f"tag:{cluster_tag(cluster)}", "Values": ["owned"]}]
    found = account.call("ec2", "describe_security_groups", Filters=owned)
    return list(found["SecurityGroups"])


def _security_groups(sight: _Sight) -> None:
    theirs = security_groups_of_services(sight.account, sight.given.name)
    of_services = {group["GroupId"] for group in theirs}
    for key, tags, group in sight.tagged("describe_security_groups", "SecurityGroups"):
        sight.found(key, group["GroupId"], tags)
        sight.rules[key] = frozenset(
            rule
            for permission in group["IpPermissions"]
            for rule in _rules(permission)
            if rule.group not in of_services
        )


def _rules(permission: Mapping[str, Any]) -> list[Rule]:
    protocol = permission["IpProtocol"]
    ports = (0, 65535)
    if protocol in WITH_PORTS:
        ports = (permission["FromPort"], permission["ToPort"])
    return [
        *(
            Rule(protocol, ports, network=r["CidrIp"])
            for r in permission.get("IpRanges", ())
            # The cloud controller made these rules, for the load balancers of Services.
            if not r.get("Description", "").startswith("kubernetes.io/rule/")
        ),
        *(Rule(protocol, ports, group=p["GroupId"]) for p in permission["UserIdGroupPairs"]),
    ]


def _key_pair(sight: _Sight) -> None:
    for key, tags, pair in sight.tagged("describe_key_pairs", "KeyPairs"):
        sight.found(key, pair["KeyName"], tags)


def _volumes(sight: _Sight) -> None:
    for key, tags, volume in sight.tagged("describe_volumes", "Volumes"):
        # EC2 removes root volumes with their instances. A volume can be `deleting` for minutes.
        if key.kind is Kind.VOLUME and volume["State"] != "deleting":
            sight.found(key, volume["VolumeId"], tags)
            at = {a["InstanceId"] for a in volume["Attachments"]}
            sight.attachments[volume["VolumeId"]] = at
            sight.volumes[key.name] = volume["AvailabilityZone"]


def _instances(sight: _Sight) -> None:
    filters = [
        {"Name": f"tag:{CLUSTER}", "Values": [sight.given.name]},
        {"Name": "instance-state-name", "Values": list(NOT_ENDED)},
    ]
    reservations = sight.account.pages("ec2", "describe_instances", "Reservations", Filters=filters)
    for instance in (i for reservation in reservations for i in reservation["Instances"]):
        tags = tags_of(instance)
        key = key_of(tags)
        if key.kind is not Kind.INSTANCE:  # of the Auto Scaling group
            continue
        described = Instance(
            instance["InstanceId"],
            instance["State"]["Name"],
            instance["Placement"]["AvailabilityZone"],
            instance.get("PrivateIpAddress", ""),
            instance.get("PublicIpAddress", ""),
            tags.get(HOST_KEY, ""),
        )
        if described.state == LEAVING:
            sight.leaving[key.name] = described
            continue
        sight.found(key, described.id, tags)
        sight.instances[key.name] = described
        if instance.get("SourceDestCheck") is False:
            sight.settings[Key(Kind.SOURCE_CHECK, key.name)] = "off"


def _launch_template(sight: _Sight) -> None:
    for key, tags, template in sight.tagged("describe_launch_templates", "LaunchTemplates"):
        sight.found(key, template["LaunchTemplateId"], tags)
        versions = sight.account.call(
            "ec2",
            "describe_launch_template_versions",
            LaunchTemplateId=template["LaunchTemplateId"],
            Versions=["$Latest"],
        )["LaunchTemplateVersions"]
        sight.settings[keys.TEMPLATE_VERSION] = versions[0].get("VersionDescription", "")


def _load_balancer(sight: _Sight) -> None:
    name = sight.names.load_balancer
    answer = _or_none(sight, "elbv2", "describe_load_balancers", Names=[name])
    for found in answer["LoadBalancers"] if answer else ():
        arn = found["LoadBalancerArn"]
        sight.found(keys.LOAD_BALANCER, arn, _elb_tags(sight, arn))
        sight.load_balancer = found["DNSName"]
        listeners = sight.account.call("elbv2", "describe_listeners", LoadBalancerArn=arn)
        for listener in listeners["Listeners"]:
            sight.ids[keys.LISTENER] = listener["ListenerArn"]


def _target_group(sight: _Sight) -> None:
    name = sight.names.load_balancer
    answer = _or_none(sight, "elbv2", "describe_target_groups", Names=[name])
    for found in answer["TargetGroups"] if answer else ():
        arn = found["TargetGroupArn"]
        sight.found(keys.TARGET_GROUP, arn, _elb_tags(sight, arn))
        health = sight.account.call("elbv2", "describe_target_health", TargetGroupArn=arn)
        sight.targets = {
            target["Target"]["Id"]
            for target in health["TargetHealthDescriptions"]
            if target["TargetHealth"]["State"] != "draining"
        }


def _elb_tags(sight: _Sight, arn: str) -> dict[str, str]:
    answer = sight.account.call("elbv2", "describe_tags", ResourceArns=[arn])
    return tags_of(answer["TagDescriptions"][0])


def _role(side: str) -> Callable[[_Sight], None]:
    def read(sight: _Sight) -> None:
        name, key = sight.names.role(side), Key(Kind.ROLE, side)
        answer = _or_none(sight, "iam", "get_role", RoleName=name)
        if answer is None:
            return
        sight.found(key, name, tags_of(answer["Role"]))
        policy = _or_none(sight, "iam", "get_role_policy", RoleName=name, PolicyName="clusterctl")
        if policy:
            sight.settings[Key(Kind.ROLE_POLICY, side)] = canonical(policy["PolicyDocument"])
        attached = sight.account.call("iam", "list_attached_role_policies", RoleName=name)
        if attached["AttachedPolicies"]:
            sight.ids[Key(Kind.SESSION_MANAGER, side)] = ""

    return read


def _profile(side: str) -> Callable[[_Sight], None]:
    def read(sight: _Sight) -> None:
        name = sight.names.role(side)
        answer = _or_none(sight, "iam", "get_instance_profile", InstanceProfileName=name)
        if answer:
            profile = answer["InstanceProfile"]
            sight.found(Key(Kind.PROFILE, side), name, tags_of(profile))
            if profile["Roles"]:
                sight.ids[Key(Kind.ROLE_IN_PROFILE, side)] = ""

    return read


def _group(sight: _Sight) -> None:
    names = [sight.names.group]
    answer = sight.account.call(
        "autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=names
    )
    for group in answer["AutoScalingGroups"]:
        if group.get("Status"):  # it is being deleted
            continue
        sight.found(keys.GROUP, group["AutoScalingGroupName"], tags_of(group))
        sight.settings[keys.GROUP_SIZE] = str(group["DesiredCapacity"])


def _bucket(sight: _Sight) -> None:
    bucket = {"Bucket": sight.names.bucket, "ExpectedBucketOwner": sight.names.account}
    try:
        sight.account.call("s3", "head_bucket", **bucket)
    except ClientError as error:
        if code_of(error) in {*_ABSENT, "403", "301"}:  # `checks` has a finding for 403 and 301
            return
        raise
    tagging = _or_none(sight, "s3", "get_bucket_tagging", **bucket)
    tags = tagging["TagSet"] if tagging else []
    if not tags:
        # A run may have been killed after it made the bucket, before it tagged it.
        versions = sight.account.call("s3", "list_object_versions", MaxKeys=1, **bucket)
        if versions.get("Versions") or versions.get("DeleteMarkers"):
            sight.found(keys.BUCKET, sight.names.bucket, {})
            return
        sight.ids[keys.BUCKET] = sight.names.bucket
    else:
        found = tags_of({"Tags": tags})
        sight.found(keys.BUCKET, sight.names.bucket, found)
        sight.settings[Key(Kind.BUCKET_SETTING, "tags")] = canonical(found)
    for what, action, read in _BUCKET_SETTINGS:
        if answer := _or_none(sight, "s3", action, **bucket):
            sight.settings[Key(Kind.BUCKET_SETTING, what)] = read(answer)


_BUCKET_SETTINGS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    (
        "privacy",
        "get_public_access_block",
        lambda a: canonical({k: a["PublicAccessBlockConfiguration"][k] for k in CLOSED}),
    ),
    ("versions", "get_bucket_versioning", lambda a: str(a.get("Status", ""))),
    (
        "encryption",
        "get_bucket_encryption",
        lambda a: str(
            a["ServerSideEncryptionConfiguration"]["Rules"][0][
                "ApplyServerSideEncryptionByDefault"
            ]["SSEAlgorithm"]
        ),
    ),
    ("policy", "get_bucket_policy", lambda a: canonical(a["Policy"])),
)


def _or_none(sight: _Sight, service: str, action: str, **request: object) -> Any:  # noqa: ANN401
    """Make a call; None if its error says that the thing does not exist."""
    try:
        return sight.account.call(service, action, **request)
    except ClientError as error:
        if code_of(error) in _ABSENT:
            return None
        raise


_READERS: tuple[Callable[[_Sight], None], ...] = (
    _bucket,  # the longest chain of calls first
    *(_role(side) for side in SIDES),
    _load_balancer,
    _target_group,
    _network,
    _gateway,
    _subnets,
    _route_tables,
    _security_groups,
    _key_pair,
    _volumes,
    _instances,
    _launch_template,
    *(_profile(side) for side in SIDES),
    _group,
)
