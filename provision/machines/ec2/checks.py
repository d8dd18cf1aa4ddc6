"""Find all faults of the inventory and the account at once, before anything is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from ipaddress import IPv4Network
from typing import Any, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from provision.aws.account import PERMISSION, Account, api_name, code_of, in_words
from provision.inventory import Draft
from provision.inventory.amis import KNOWN, image_of, newest
from provision.machines.ec2 import keys
from provision.machines.ec2.keys import Key, Kind
from provision.machines.ec2.model import Seen, Step, World, resolved
from provision.machines.ec2.names import KEY, names_of, too_long
from provision.machines.ec2.placing import subnet_of, subnets
from provision.machines.ec2.seen import key_of, tags_of
from provision.model.cluster import Settings
from provision.model.commands import clusterctl
from provision.model.errors import Finding, PreflightError

T = TypeVar("T")

AT_ONCE = 12
_ARCHES = {"x86_64": "amd64", "arm64": "arm64"}


def region(given: Settings) -> list[Finding]:
    """Check the region without a call to AWS: the host name of a wrong region does not resolve."""
    session = boto3.session.Session()
    known = session.get_available_regions("ec2", "aws")
    if given.ec2.region in known:
        return []
    where = "cluster.ec2.region"
    for partition in session.get_available_partitions():
        if given.ec2.region in session.get_available_regions("ec2", partition):
            what = (
                f"{given.ec2.region} is in {partition}, whose ARNs and names differ from AWS' own"
            )
            return [Finding(where, what, "a region of the partition aws, such as 'eu-central-1'")]
    close = get_close_matches(given.ec2.region, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "such as 'eu-central-1'"
    return [Finding(where, f"there is no region {given.ec2.region!r}", hint)]


def world(account: Account, draft: Draft, number: str) -> tuple[World, list[Finding]]:
    """Query the account for facts that the inventory does not have, and check the inventory.

    Raises:
        MachinesError: a query fails.
    """
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        zones = pool.submit(_ask, lambda: _zones(account, draft))
        vpc = pool.submit(_ask, lambda: _vpc(account, draft))
        pair = pool.submit(_ask, lambda: _key_pair(account, draft))
        bucket = pool.submit(_ask, lambda: _bucket(account, draft, number))
        arches, types = _ask(lambda: _types(account, draft))
        images = {
            side: pool.submit(_ask, lambda arch=arch: _image(account, draft, arch))
            for side, arch in arches.items()
        }
    gateway, vpc_findings = vpc.result()
    findings = [
        *too_long(names_of(draft, number)),
        *zones.result(),
        *types,
        *vpc_findings,
        *pair.result(),
        *bucket.result(),
    ]
    ids, roots = {}, {}
    for side, future in images.items():
        image, problem = future.result()
        if image:
            ids[side], roots[side] = image["ImageId"], image.get("RootDeviceName", "/dev/xvda")
        if problem and problem not in findings:
            findings.append(problem)
    return World(number, ids, roots, gateway=gateway), findings


def foreign(draft: Draft, seen: Seen) -> Iterator[Finding]:
    """Find things with this cluster's name or tags that belong to another cluster or owner."""
    ours = (draft.name, draft.ec2.owner)
    for key, (cluster, owner) in seen.owners.items():
        if (cluster, owner) == ours:
            continue
        if not cluster:
            what = f"{key} ({seen.ids[key]}) exists already, and clusterctl did not make it"
            own = "another `bucket`" if key == keys.BUCKET else "the cluster another name"
            yield Finding("cluster.ec2", what, f"give {own}, or remove it")
        else:
            what = f"{key} ({seen.ids[key]}) belongs to the cluster {cluster!r} of {owner!r}"
            yield Finding("cluster.ec2.owner", what, "give this cluster another name")


def moved(draft: Draft, seen: Seen) -> Iterator[Finding]:
    """Find machines and volumes that are in a zone that the inventory no longer has."""
    names = {host.name for host in draft.hosts}
    there = {name: instance.zone for name, instance in seen.instances.items()}
    volumes = {
        str(Key(Kind.VOLUME, name)): zone for name, zone in seen.volumes.items() if name in names
    }
    for name, zone in {**there, **volumes}.items():
        if zone and zone not in draft.ec2.zones:
            what = f"is in {zone}, which is no longer in `zones`"
            yield Finding(name, what, f"keep {zone} in `zones` as long as it exists")
    for name in seen.instances.keys() - names:
        what = f"exists ({seen.instances[name].id}), but is not in the inventory"
        yield Finding(
            name,
            what,
            f"put it back into {draft.inventory}, then: {clusterctl('node', 'remove', draft.inventory, name)}",
            fatal=False,
        )


def rights(account: Account, steps: Iterable[Step], seen: Seen) -> list[Finding]:
    """Check by dry runs whether the operator has the rights for these steps.

    Only EC2 has dry runs. A placeholder is the id of a thing that does not exist yet: EC2 checks
    the rights before it checks ids.
    """
    one_of_each = {step.action: step for step in steps if _can_be_tried(step)}

    def refused(step: Step) -> Finding | None:
        ids = _Placeholders(seen.ids)
        try:
            account.call("ec2", step.action, DryRun=True, **resolved(step.request, ids))
        except ClientError as error:
            if code_of(error) in PERMISSION:
                name = f"ec2:{api_name(step.action)}"
                hint = f"ask for the right to call {name}; docs/ec2.md has the whole policy"
                return Finding("AWS", f"no right to call {name}", hint)
        except BotoCoreError:
            pass  # the call itself will report the fault
        return None

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return [finding for finding in pool.map(refused, one_of_each.values()) if finding]


def _can_be_tried(step: Step) -> bool:
    return step.service == "ec2" and step.action.startswith(("create_", "run_", "import_"))


_ID_PREFIXES = {
    Kind.VPC: "vpc", Kind.SUBNET: "subnet", Kind.GROUP_SUBNET: "subnet", Kind.ROUTE_TABLE: "rtb",
    Kind.GATEWAY: "igw", Kind.SECURITY_GROUP: "sg", Kind.INSTANCE: "i", Kind.VOLUME: "vol",
    Kind.LAUNCH_TEMPLATE: "lt",
}  # fmt: skip


class _Placeholders(dict[Key, str]):
    """Ids; a thing that does not exist yet has an id of the right form."""

    def __missing__(self, key: Key) -> str:
        return f"{_ID_PREFIXES.get(key.kind, key)}-0123456789abcdef0"


def _ask(reader: Callable[[], T]) -> T:
    try:
        return reader()
    except (ClientError, BotoCoreError) as error:
        raise in_words(error, "EC2", getattr(error, "operation_name", "")) from error


def _zones(account: Account, draft: Draft) -> list[Finding]:
    found = account.call("ec2", "describe_availability_zones")["AvailabilityZones"]
    known = {zone["ZoneName"] for zone in found if zone.get("ZoneType") != "local-zone"}
    hint = f"there are {', '.join(sorted(known))}"
    return [
        Finding("cluster.ec2.zones", f"{draft.ec2.region} has no zone {zone!r}", hint)
        for zone in draft.ec2.zones
        if zone not in known
    ]


def _types(account: Account, draft: Draft) -> tuple[dict[str, str], list[Finding]]:
    """Give side -> architecture, in EC2's words, and findings on the instance types."""
    arches: dict[str, str] = {}
    findings = []
    wanted = {
        "masters": ("master_type", draft.ec2.master_type),
        "workers": ("worker_type", draft.ec2.worker_type),
    }
    for side, (field, kind) in wanted.items():
        where = f"cluster.ec2.{field}"
        try:
            (described,) = account.call("ec2", "describe_instance_types", InstanceTypes=[kind])[
                "InstanceTypes"
            ]
        except ClientError as error:
            if code_of(error) not in {"InvalidInstanceType", "InvalidParameterValue"}:
                raise
            findings.append(
                Finding(where, f"there is no instance type {kind!r}", "such as t3.medium")
            )
            continue
        arches[side] = described["ProcessorInfo"]["SupportedArchitectures"][-1]
        if side == "masters" and described.get("Hypervisor", "nitro") != "nitro":
            what = f"{kind} is of the Xen generation, where etcd's volume has another device name"
            findings.append(
                Finding(where, what, "a type of the Nitro generation, such as t3.medium")
            )
        findings += _not_offered(account, draft, where, kind)
    return arches, findings


def worker_arch(account: Account, draft: Draft) -> str:
    """Give the architecture of the workers' instance type, in clusterctl's words: `amd64`.

    Raises:
        MachinesError: EC2 has no such type, or does not answer.
    """
    kinds = [draft.ec2.worker_type]
    found = _ask(lambda: account.call("ec2", "describe_instance_types", InstanceTypes=kinds))
    (described,) = found["InstanceTypes"]
    return _ARCHES[described["ProcessorInfo"]["SupportedArchitectures"][-1]]


def _not_offered(account: Account, draft: Draft, where: str, kind: str) -> Iterator[Finding]:
    offers = account.call(
        "ec2",
        "describe_instance_type_offerings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": [kind]}],
    )["InstanceTypeOfferings"]
    at = {offer["Location"] for offer in offers}
    for zone in draft.ec2.zones:
        if zone not in at and zone.startswith(draft.ec2.region):
            hint = (
                f"zones with it: {', '.join(sorted(at))}" if at else "no zone of this region has it"
            )
            yield Finding(where, f"{zone} does not offer {kind}", hint)


def _image(
    account: Account, draft: Draft, arch: str
) -> tuple[dict[str, Any] | None, Finding | None]:
    image = image_of(draft.ec2.image)
    if image is None:  # `inventory.checks` refuses this inventory
        return None, None
    what = f"there is no AMI {draft.ec2.image!r} for {arch} in {draft.ec2.region}"
    hint = f"AMIs differ between regions; each of {', '.join(KNOWN)} finds the newest"
    missing = Finding("cluster.ec2.image", what, hint)
    try:
        found = newest(account.call("ec2", "describe_images", **image.request(arch))["Images"])
    except ClientError as error:
        if not code_of(error).startswith("InvalidAMIID"):
            raise in_words(error, "EC2", "describe_images") from error
        return None, missing
    if found and found.get("Architecture", arch) != arch:
        what = f"{draft.ec2.image} is for {found['Architecture']}, but the instance type is {arch}"
        return found, Finding(
            "cluster.ec2.image",
            what,
            f"an image for {arch}, or an instance type for {found['Architecture']}",
        )
    return found, None if found else missing


def _vpc(account: Account, draft: Draft) -> tuple[str, list[Finding]]:
    """Give the id of the internet gateway of an existing VPC, and findings on the VPC."""
    vpc, network = draft.ec2.vpc, draft.ec2.network
    if vpc is None:
        return "", []
    try:
        (described,) = account.call("ec2", "describe_vpcs", VpcIds=[vpc])["Vpcs"]
    except ClientError as error:
        if not code_of(error).startswith("InvalidVpcID"):
            raise
        what = f"there is no VPC {vpc} in {draft.ec2.region}"
        return "", [Finding("cluster.ec2.vpc", what, "leave it out: clusterctl makes one")]
    findings = []
    blocks = [IPv4Network(b["CidrBlock"]) for b in described["CidrBlockAssociationSet"]]
    if not any(network.subnet_of(block) for block in blocks):
        hint = "a free part of the VPC's network"
        what = f"{network} is not in the VPC's {', '.join(map(str, blocks))}"
        findings.append(Finding("cluster.ec2.network", what, hint))
    for field in ("pods", "services"):
        other = getattr(draft.networks, field)
        if any(other.overlaps(block) for block in blocks):
            what = f"{other} overlaps the VPC's {', '.join(map(str, blocks))}"
            hint = "a network that nothing else uses"
            findings.append(Finding(f"cluster.networks.{field}", what, hint))
    mine = {"Name": "vpc-id", "Values": [vpc]}
    ours = {key: subnet_of(draft, zone, group=group) for key, zone, group in subnets(draft)}
    for subnet in account.call("ec2", "describe_subnets", Filters=[mine])["Subnets"]:
        there = IPv4Network(subnet["CidrBlock"])
        if key_of(tags_of(subnet)) not in ours and any(
            there.overlaps(own) for own in ours.values()
        ):
            what = f"{network} overlaps the subnet {subnet['SubnetId']} ({there})"
            findings.append(Finding("cluster.ec2.network", what, "a free part of the VPC"))
    attached = {"Name": "attachment.vpc-id", "Values": [vpc]}
    gateways = account.call("ec2", "describe_internet_gateways", Filters=[attached])
    others = [g for g in gateways["InternetGateways"] if KEY not in tags_of(g)]
    return (others[0]["InternetGatewayId"] if others else ""), findings


def _key_pair(account: Account, draft: Draft) -> list[Finding]:
    name = draft.ec2.key_pair
    if name is None:
        return []
    try:
        account.call("ec2", "describe_key_pairs", KeyNames=[name])
    except ClientError as error:
        if not code_of(error).startswith("InvalidKeyPair"):
            raise
        what = f"there is no key pair {name!r} in {draft.ec2.region}"
        return [
            Finding(
                "cluster.ec2.key_pair", what, "leave it out: clusterctl makes a key and imports it"
            )
        ]
    return []


def _bucket(account: Account, draft: Draft, number: str) -> list[Finding]:
    name = names_of(draft, number).bucket
    try:
        account.call("s3", "head_bucket", Bucket=name, ExpectedBucketOwner=number)
    except ClientError as error:
        if code_of(error) in {"403", "AccessDenied"}:
            what = (
                f"the bucket {name!r} belongs to another account, or you have no right to read it"
            )
            hint = "give another `bucket`: its name must be unique in all of AWS"
            return [Finding("cluster.ec2.bucket", what, hint)]
        if code_of(error) not in {"404", "NoSuchBucket", "301"}:
            raise
        if code_of(error) == "301":
            what = f"the bucket {name!r} is in another region"
            return [Finding("cluster.ec2.bucket", what, "give another `bucket`")]
    return []


def refuse(draft: Draft, findings: Iterable[Finding]) -> None:
    """Stop if a finding is fatal.

    Raises:
        PreflightError: has all findings.
    """
    found = list(findings)
    if any(finding.fatal for finding in found):
        summary = f"{draft.name} cannot be made on EC2; nothing was changed"
        raise PreflightError(summary, found)
