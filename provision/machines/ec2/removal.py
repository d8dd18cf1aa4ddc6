"""Remove everything of a cluster from the account, in the order that AWS demands.

It removes what exists, not what the inventory says, because the inventory may have changed. It also
removes what Services made: load balancers with their parts, and volumes. Those have the tag
`kubernetes.io/cluster/NAME` = `owned`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from provision.aws.account import Account, code_of, in_words
from provision.local.progress import Progress
from provision.machines.ec2 import keys
from provision.machines.ec2.keys import Key, Kind
from provision.machines.ec2.model import Seen
from provision.machines.ec2.names import CLUSTER, SIDES, Names, cluster_tag
from provision.machines.ec2.seen import NOT_ENDED, key_of, security_groups_of_services, tags_of
from provision.model.errors import MachinesError

AT_ONCE = 8
PATIENCE = 300.0  # seconds; AWS removes a load balancer's interfaces some minutes after it
PAUSE = 3.0  # seconds between two tries
_GONE = ("NotFound", "NotAttached", "NoSuchEntity", "NoSuchBucket", "ValidationError")
_BUSY = {
    "DependencyViolation", "ResourceInUse", "ResourceInUseException", "VolumeInUse", "IncorrectState",
    "DeleteConflict", "ScalingActivityInProgress", "ResourceInUseFault", "InvalidGroup.InUse",
}  # fmt: skip


@dataclass(frozen=True)
class _Removal:
    """One call. It succeeds if the thing is gone already. While the thing is in use, it repeats."""

    what: str
    service: str
    action: str
    request: Mapping[str, Any]


def remove(
    account: Account,
    names: Names,
    seen: Seen,
    progress: Progress,
    *,
    keep_vpc: bool,
) -> None:
    """Remove everything; return when it is gone.

    Args:
        seen: the cluster's things.
        keep_vpc: the VPC existed before the cluster.

    Raises:
        MachinesError: a thing blocks a removal; the message names it.
    """
    deadline = time.monotonic() + PATIENCE
    waves = _Waves(account, names, seen, keep_vpc).all()
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for wave in waves:
            removals = list(wave())

            def one(removal: _Removal) -> MachinesError | None:
                progress.update(removal.what, "remove")
                problem = _carry_out(account, removal, seen, deadline)
                progress.done(
                    removal.what, problem.message if problem else "", failed=bool(problem)
                )
                return problem

            problems = [problem for problem in pool.map(one, removals) if problem]
            if len(problems) == 1:
                raise problems[0]
            if problems:
                lines = "\n".join(f"  {problem.message}" for problem in problems)
                message = f"{len(problems)} things could not be removed:\n{lines}"
                raise MachinesError(message, hint=problems[0].hint)


def remove_machines(account: Account, seen: Seen, names: Collection[str]) -> None:
    """Remove instances, and the volumes that outlive them.

    Raises:
        ClientError, BotoCoreError: AWS refuses.
    """
    if ids := [seen.instances[name].id for name in names if name in seen.instances]:
        account.call("ec2", "terminate_instances", InstanceIds=ids)
    # Also wait for instances that an earlier run terminated before it was killed.
    if ids := [*ids, *(seen.leaving[name].id for name in names if name in seen.leaving)]:
        account.wait("instance_terminated", {"InstanceIds": ids})
    for name in names:
        if volume := seen.ids.get(Key(Kind.VOLUME, name)):
            account.call("ec2", "delete_volume", VolumeId=volume)


@dataclass(frozen=True)
class _Waves:
    """Removals in waves. One wave runs in parallel, and begins when the previous wave has ended."""

    account: Account
    names: Names
    seen: Seen
    keep_vpc: bool

    def all(self) -> tuple[Callable[[], Iterator[_Removal]], ...]:
        return (self.users, self.used, self.contents, self.things, self.network, self.vpc)

    def of(self, kind: Kind) -> Iterator[tuple[str, str]]:
        """Give (text of the key, id) of the things of a kind."""
        for key, id_ in self.seen.ids.items():
            if key.kind is kind:
                yield str(key), id_

    def security_groups(self) -> Iterator[tuple[str, str]]:
        """Give (text, id) of the cluster's groups, and of those of Services' load balancers."""
        yield from self.of(Kind.SECURITY_GROUP)
        for group in security_groups_of_services(self.account, self.names.cluster):
            yield f"security group {group['GroupName']} of a Service", group["GroupId"]

    def every(self, kind: Kind, service: str, action: str, argument: str) -> Iterator[_Removal]:
        for key, id_ in self.of(kind):
            yield _Removal(key, service, action, {argument: id_})

    def users(self) -> Iterator[_Removal]:
        """Things that use other things."""
        if keys.GROUP in self.seen.ids:
            request = {"AutoScalingGroupName": self.names.group, "ForceDelete": True}
            yield _Removal(str(keys.GROUP), "autoscaling", "delete_auto_scaling_group", request)
        found = _of_services(self.account, self.names, "load_balancer")
        for key, arn in (*self.of(Kind.LOAD_BALANCER), *found):
            yield _Removal(key, "elbv2", "delete_load_balancer", {"LoadBalancerArn": arn})
        for name in _classic(self.account, self.names):
            key, request = f"load balancer {name} of a Service", {"LoadBalancerName": name}
            yield _Removal(key, "elb", "delete_load_balancer", request)
        # The group terminates its own instances: it would replace one that clusterctl terminates.
        if instances := all_instances(
            self.account, self.names, grouped=keys.GROUP not in self.seen.ids
        ):
            request = {"InstanceIds": sorted(instances)}
            yield _Removal("instances", "ec2", "terminate_instances", request)

    def used(self) -> Iterator[_Removal]:
        """Things that instances and load balancers used."""
        if instances := all_instances(self.account, self.names):
            # Also wait for the group's instances, which the group terminates.
            self.account.wait("instance_terminated", {"InstanceIds": sorted(instances)})
        found = _of_services(self.account, self.names, "target_group")
        for key, arn in (*self.of(Kind.TARGET_GROUP), *found):
            yield _Removal(key, "elbv2", "delete_target_group", {"TargetGroupArn": arn})
        yield from self.every(Kind.VOLUME, "ec2", "delete_volume", "VolumeId")
        for key, id_ in _volumes_of_services(self.account, self.names):
            yield _Removal(key, "ec2", "delete_volume", {"VolumeId": id_})
        template = ("ec2", "delete_launch_template", "LaunchTemplateId")
        yield from self.every(Kind.LAUNCH_TEMPLATE, *template)
        yield from self.every(Kind.KEY_PAIR, "ec2", "delete_key_pair", "KeyName")

    def contents(self) -> Iterator[_Removal]:
        """Contents that must be removed before their container."""
        for side in SIDES:
            yield from _identity_contents(self.account, self.names.role(side), self.seen, side)
        for key, id_ in self.security_groups():
            if rules := _permissions(self.account, id_):  # groups may name each other in rules
                request = {"GroupId": id_, "IpPermissions": rules}
                action = "revoke_security_group_ingress"
                yield _Removal(f"rules of {key}", "ec2", action, request)
        for key, table in self.of(Kind.ROUTE_TABLE):
            for association in _associations(self.account, table):
                request = {"AssociationId": association}
                yield _Removal(f"{key} at a subnet", "ec2", "disassociate_route_table", request)
        if keys.BUCKET in self.seen.ids:
            _empty(self.account, self.seen.ids[keys.BUCKET])

    def things(self) -> Iterator[_Removal]:
        profile = ("iam", "delete_instance_profile", "InstanceProfileName")
        yield from self.every(Kind.PROFILE, *profile)
        for side in SIDES:
            if (role := Key(Kind.ROLE, side)) in self.seen.ids:
                request = {"RoleName": self.names.role(side)}
                yield _Removal(str(role), "iam", "delete_role", request)
        for key, id_ in self.security_groups():
            yield _Removal(key, "ec2", "delete_security_group", {"GroupId": id_})
        for kind in (Kind.SUBNET, Kind.GROUP_SUBNET):
            yield from self.every(kind, "ec2", "delete_subnet", "SubnetId")
        yield from self.every(Kind.BUCKET, "s3", "delete_bucket", "Bucket")
        if keys.GATEWAY_AT_VPC in self.seen.ids:
            gateway, vpc = self.seen.ids[keys.GATEWAY], self.seen.ids[keys.VPC]
            request = {"InternetGatewayId": gateway, "VpcId": vpc}
            yield _Removal(str(keys.GATEWAY_AT_VPC), "ec2", "detach_internet_gateway", request)

    def network(self) -> Iterator[_Removal]:
        yield from self.every(Kind.ROUTE_TABLE, "ec2", "delete_route_table", "RouteTableId")
        gateway = ("ec2", "delete_internet_gateway", "InternetGatewayId")
        yield from self.every(Kind.GATEWAY, *gateway)

    def vpc(self) -> Iterator[_Removal]:
        if not self.keep_vpc:
            yield from self.every(Kind.VPC, "ec2", "delete_vpc", "VpcId")


def all_instances(account: Account, names: Names, *, grouped: bool = True) -> set[str]:
    """List ids of the cluster's instances that have not ended. `grouped`: also the group's."""
    filters = [
        {"Name": f"tag:{CLUSTER}", "Values": [names.cluster]},
        {"Name": "instance-state-name", "Values": list(NOT_ENDED)},
    ]
    pages = account.pages("ec2", "describe_instances", "Reservations", Filters=filters)
    found = (i for reservation in pages for i in reservation["Instances"])
    return {i["InstanceId"] for i in found if grouped or key_of(tags_of(i)) != keys.GROUPED}


def _of_services(account: Account, names: Names, kind: str) -> Iterator[tuple[str, str]]:
    """List (text, ARN) of things of the cluster's Services: `load_balancer` or `target_group`."""
    camel = "".join(word.capitalize() for word in kind.split("_"))
    listed = account.pages("elbv2", f"describe_{kind}s", f"{camel}s")
    arns = [found[f"{camel}Arn"] for found in listed]
    for start in range(0, len(arns), 20):  # AWS takes 20 at a time
        answer = account.call("elbv2", "describe_tags", ResourceArns=arns[start : start + 20])
        for described in answer["TagDescriptions"]:
            if _of_cluster(described, names):
                arn = described["ResourceArn"]
                yield f"{kind.replace('_', ' ')} {arn.split('/')[-2]} of a Service", arn


def _classic(account: Account, names: Names) -> Iterator[str]:
    """Give names of classic load balancers that Services of this cluster have."""
    listed = account.pages("elb", "describe_load_balancers", "LoadBalancerDescriptions")
    all_names = [found["LoadBalancerName"] for found in listed]
    for start in range(0, len(all_names), 20):
        some = all_names[start : start + 20]
        answer = account.call("elb", "describe_tags", LoadBalancerNames=some)
        for described in answer["TagDescriptions"]:
            if _of_cluster(described, names):
                yield described["LoadBalancerName"]


def _of_cluster(described: Mapping[str, Any], names: Names) -> bool:
    return tags_of(described).get(cluster_tag(names.cluster)) == "owned"


def _volumes_of_services(account: Account, names: Names) -> Iterator[tuple[str, str]]:
    owned = [{"Name": f"tag:{cluster_tag(names.cluster)}", "Values": ["owned"]}]
    for volume in account.call("ec2", "describe_volumes", Filters=owned)["Volumes"]:
        yield f"volume {volume['VolumeId']} of a claim", volume["VolumeId"]


def _identity_contents(account: Account, role: str, seen: Seen, side: str) -> Iterator[_Removal]:
    if (membership := Key(Kind.ROLE_IN_PROFILE, side)) in seen.ids:
        request = {"InstanceProfileName": role, "RoleName": role}
        yield _Removal(str(membership), "iam", "remove_role_from_instance_profile", request)
    if Key(Kind.ROLE, side) not in seen.ids:
        return
    for policy in account.call("iam", "list_role_policies", RoleName=role)["PolicyNames"]:
        request = {"RoleName": role, "PolicyName": policy}
        yield _Removal(str(Key(Kind.ROLE_POLICY, side)), "iam", "delete_role_policy", request)
    attached = account.call("iam", "list_attached_role_policies", RoleName=role)
    for managed in attached["AttachedPolicies"]:
        request = {"RoleName": role, "PolicyArn": managed["PolicyArn"]}
        yield _Removal(f"policy at role {side}", "iam", "detach_role_policy", request)


def _permissions(account: Account, group: str) -> list[dict[str, Any]]:
    found = account.call("ec2", "describe_security_groups", GroupIds=[group])["SecurityGroups"]
    return [
        {key: value for key, value in permission.items() if value != []}
        for permission in found[0]["IpPermissions"]
    ]


def _associations(account: Account, table: str) -> list[str]:
    found = account.call("ec2", "describe_route_tables", RouteTableIds=[table])["RouteTables"]
    return [a["RouteTableAssociationId"] for a in found[0]["Associations"] if not a.get("Main")]


def _empty(account: Account, bucket: str) -> None:
    """Remove all versions of all objects."""
    while True:
        page = account.call("s3", "list_object_versions", Bucket=bucket)
        entries = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if not entries:
            return
        objects = [{"Key": e["Key"], "VersionId": e["VersionId"]} for e in entries]
        wanted = {"Objects": objects, "Quiet": True}
        answer = account.call("s3", "delete_objects", Bucket=bucket, Delete=wanted)
        if errors := answer.get("Errors"):
            message = f"bucket: {errors[0]['Key']}: {errors[0].get('Message', '')}"
            raise MachinesError(
                message, hint="first remove the object lock or legal hold that protects it"
            )


def _carry_out(
    account: Account, removal: _Removal, seen: Seen, deadline: float
) -> MachinesError | None:
    while True:
        try:
            account.call(removal.service, removal.action, **removal.request)
        except ClientError as error:
            code = code_of(error)
            if any(word in code for word in _GONE):
                return None
            if code in _BUSY and time.monotonic() < deadline:
                time.sleep(PAUSE)
                continue
            if code in _BUSY:
                return _blocked(account, removal, seen, error)
            return in_words(error, removal.what, removal.action)
        except BotoCoreError as error:
            return in_words(error, removal.what, removal.action)
        return None


def _blocked(account: Account, removal: _Removal, seen: Seen, error: ClientError) -> MachinesError:
    """Name the network interfaces that block a removal."""
    vpc = seen.ids.get(keys.VPC, "")
    filters = [{"Name": "vpc-id", "Values": [vpc]}]
    try:
        found = account.call("ec2", "describe_network_interfaces", Filters=filters)
    except (ClientError, BotoCoreError):
        found = {"NetworkInterfaces": []}
    blocking = [_in_words(interface) for interface in found["NetworkInterfaces"]]
    what = "; ".join(blocking) or error.response.get("Error", {}).get("Message", "")
    return MachinesError(
        f"{removal.what} cannot be removed, because it is in use: {what}",
        hint="clusterctl did not make the user of it: remove that first, then run the same command again",
    )


def _in_words(interface: Mapping[str, Any]) -> str:
    user = interface.get("Attachment", {}).get("InstanceId") or interface.get("Description", "")
    subnet = interface.get("SubnetId", "")
    return f"network interface {interface['NetworkInterfaceId']} in {subnet} ({user or 'unused'})"
