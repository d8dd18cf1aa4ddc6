"""EC2 against moto's server, over HTTP. Assertions use boto3 directly, not code of clusterctl."""

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from provision import inventory
from provision.local.progress import Silent
from provision.machines.ec2 import logins, removal
from provision.machines.ec2 import source as source_module
from provision.machines.ec2.source import Ec2
from provision.model import ports
from provision.model.errors import InventoryError, MachinesError, PreflightError
from tests.aws import (
    ACCOUNT,
    AMI,
    CREDENTIALS,
    REGION,
    moto_server,
    operators_policy,
    proxy_of,
)
from tests.e2e.sample import EVERYTHING, seed

CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
ZONES = [f"{REGION}{letter}" for letter in "abc"]


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with moto_server(tmp_path_factory.mktemp("moto")) as moto:
        yield moto


@pytest.fixture(scope="module")
def proxies(moto):
    with proxy_of(moto) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def accounts():
    """boto3's clients, made once: to make them takes longer than all calls of a test."""
    return {}


@pytest.fixture
def proxy(moto, proxies, tmp_path, monkeypatch):
    """An empty account behind a proxy that injects no errors yet."""
    moto.reset()
    proxies.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxies.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(removal, "PAUSE", 0.05)
    monkeypatch.setattr(removal, "PATIENCE", 10.0)
    return proxies


@pytest.fixture
def fresh(accounts):
    """Gives a function that makes a new machine source, as a new run does."""

    def make():
        source = Ec2()
        source._accounts, source._number = accounts, ACCOUNT
        return source

    source = make()
    return make if accounts else lambda: source if not accounts else make()


def write(folder, masters=("m1", "m2", "m3"), workers=("w1",), name="demo", settings=None, **ec2):
    values = {
        "region": REGION,
        "zones": ZONES,
        "owner": "team",
        "network": "10.78.0.0/16",
        "ssh_from": ["203.0.113.7/32"],
        "api_from": ["198.51.100.0/24"],
        "group": 2,
        **ec2,
    }
    cluster = {"name": name, "machines": "ec2", "ec2": values, **(settings or {})}
    path = folder / "inventory.py"
    text = f"cluster = {cluster!r}\nmasters = {list(masters)!r}\n"
    path.write_text(text + (f"workers = {list(workers)!r}\n" if workers else ""))
    return path


def draft_of(folder, **values):
    return inventory.read(write(folder, **values))


def small(folder, **values):
    return draft_of(folder, masters=["m1"], workers=[], zones=ZONES[:1], group=1, **values)


def tags_of(thing):
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}


def instances(moto, *states):
    pages = moto.client("ec2").describe_instances()["Reservations"]
    found = [i for reservation in pages for i in reservation["Instances"]]
    return [i for i in found if i["State"]["Name"] in (states or ("pending", "running"))]


def named(moto):
    return {
        tags_of(i)["clusterctl:key"].removeprefix("instance "): i
        for i in instances(moto)
        if tags_of(i).get("clusterctl:key", "").startswith("instance ")
    }


def ours(moto):
    """Everything in the account except moto's own default VPC. After removal it must be empty."""
    ec2 = moto.client("ec2")
    default = {v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if v["IsDefault"]}
    left = {
        "vpcs": [v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if v["VpcId"] not in default],
        "gateways": [g["InternetGatewayId"] for g in ec2.describe_internet_gateways()["InternetGateways"]],
        "volumes": [v["VolumeId"] for v in ec2.describe_volumes()["Volumes"]],
        "key pairs": [k["KeyName"] for k in ec2.describe_key_pairs()["KeyPairs"]],
        "templates": ec2.describe_launch_templates()["LaunchTemplates"],
        "instances": [i["InstanceId"] for i in instances(moto)],
        "load balancers": moto.client("elbv2").describe_load_balancers()["LoadBalancers"],
        "target groups": moto.client("elbv2").describe_target_groups()["TargetGroups"],
        "groups": moto.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"],
        "roles": moto.client("iam").list_roles()["Roles"],
        "profiles": moto.client("iam").list_instance_profiles()["InstanceProfiles"],
        "buckets": moto.client("s3").list_buckets()["Buckets"],
    }  # fmt: skip
    for what, action, items in (
        ("subnets", "describe_subnets", "Subnets"),
        ("tables", "describe_route_tables", "RouteTables"),
        ("security groups", "describe_security_groups", "SecurityGroups"),
    ):
        left[what] = [t for t in getattr(ec2, action)()[items] if t["VpcId"] not in default]
    return {what: things for what, things in left.items() if things}


def picture(moto):
    """The contents of the account, without values that differ from run to run."""
    ec2, elb = moto.client("ec2"), moto.client("elbv2")
    keys = []
    for action, items in (
        ("describe_vpcs", "Vpcs"),
        ("describe_internet_gateways", "InternetGateways"),
        ("describe_subnets", "Subnets"),
        ("describe_route_tables", "RouteTables"),
        ("describe_security_groups", "SecurityGroups"),
        ("describe_key_pairs", "KeyPairs"),
        ("describe_volumes", "Volumes"),
        ("describe_launch_templates", "LaunchTemplates"),
    ):
        keys += [
            tags_of(thing).get("clusterctl:key", "-") for thing in getattr(ec2, action)()[items]
        ]
    (table,) = [
        t for t in ec2.describe_route_tables()["RouteTables"] if "clusterctl:key" in tags_of(t)
    ]
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    (targets,) = elb.describe_target_groups()["TargetGroups"]
    health = elb.describe_target_health(TargetGroupArn=targets["TargetGroupArn"])
    iam, s3 = moto.client("iam"), moto.client("s3")
    (bucket,) = [b["Name"] for b in s3.list_buckets()["Buckets"]]
    roles = [r["RoleName"] for r in iam.list_roles()["Roles"]]
    (group,) = moto.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return {
        "keys": sorted(keys),
        "machines": sorted(
            (name, i["PrivateIpAddress"], i["SourceDestCheck"], len(i["BlockDeviceMappings"]))
            for name, i in named(moto).items()
        ),
        "of the group": len(instances(moto)) - len(named(moto)),
        "routes": sorted(r["DestinationCidrBlock"] for r in table["Routes"]),
        "associations": len([a for a in table["Associations"] if not a["Main"]]),
        "rules": {
            g["GroupName"]: sorted(
                (p["IpProtocol"], p.get("FromPort", 0), len(p["IpRanges"]), len(p["UserIdGroupPairs"]))
                for p in g["IpPermissions"]
            )
            for g in ec2.describe_security_groups()["SecurityGroups"]
            if g["GroupName"] != "default"
        },
        "listeners": len(
            elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
        ),
        "targets": len(health["TargetHealthDescriptions"]),
        "roles": {r: iam.list_role_policies(RoleName=r)["PolicyNames"] for r in sorted(roles)},
        "profiles": sorted(
            (p["InstanceProfileName"], len(p["Roles"]))
            for p in iam.list_instance_profiles()["InstanceProfiles"]
        ),
        "bucket": (
            len(s3.get_bucket_tagging(Bucket=bucket)["TagSet"]),
            s3.get_bucket_versioning(Bucket=bucket)["Status"],
            s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"],
            len(s3.get_bucket_policy(Bucket=bucket)["Policy"]),
        ),
        "group": (group["DesiredCapacity"], len(group["Instances"])),
    }  # fmt: skip


# Making


def test_everything_around_a_cluster_is_made_as_the_inventory_says(moto, proxy, fresh, tmp_path):
    draft = draft_of(tmp_path)

    fresh().make(draft, Silent())

    ec2 = moto.client("ec2")
    (vpc,) = [v for v in ec2.describe_vpcs()["Vpcs"] if v["CidrBlock"] == "10.78.0.0/16"]
    assert tags_of(vpc)["clusterctl:cluster"] == "demo"
    assert tags_of(vpc)["clusterctl:owner"] == "team"
    mine = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
    subnets = ec2.describe_subnets(Filters=mine)["Subnets"]
    assert sorted(s["AvailabilityZone"] for s in subnets) == sorted(ZONES * 2)
    machines = named(moto)
    assert [machines[f"m{n}"]["Placement"]["AvailabilityZone"] for n in (1, 2, 3)] == ZONES
    for name, machine in machines.items():
        assert machine["ImageId"] == AMI
        assert machine["SourceDestCheck"] is False
        options = machine["MetadataOptions"]
        assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
        assert tags_of(machine)["clusterctl:host-key"].startswith("ssh-ed25519 AAAA")
        data = ec2.describe_instance_attribute(
            InstanceId=machine["InstanceId"], Attribute="userData"
        )
        assert data["UserData"]["Value"]
        volumes = [b["Ebs"]["VolumeId"] for b in machine["BlockDeviceMappings"]]
        described = ec2.describe_volumes(VolumeIds=volumes)["Volumes"]
        assert all(volume["Encrypted"] for volume in described)
        assert {v["VolumeType"] for v in described} == {"gp3"}
        etcd = [v for v in described if tags_of(v).get("clusterctl:key") == f"volume {name}"]
        assert len(etcd) == (1 if name.startswith("m") else 0)
    (group,) = moto.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (2, 2, 2)
    assert len(group["VPCZoneIdentifier"].split(",")) == 3


def test_ports_are_open_only_to_sources_in_the_inventory(moto, proxy, fresh, tmp_path):
    fresh().make(draft_of(tmp_path), Silent())

    groups = {
        g["GroupName"]: g for g in moto.client("ec2").describe_security_groups()["SecurityGroups"]
    }
    masters, workers = groups["clusterctl-demo-masters"], groups["clusterctl-demo-workers"]

    def open_to(group, network):
        address = IPv4Network(network)
        return {
            p.get("FromPort", 0)
            for p in group["IpPermissions"]
            for r in p["IpRanges"]
            if address.subnet_of(IPv4Network(r["CidrIp"]))
        }

    assert open_to(masters, "203.0.113.7/32") == {22}
    assert open_to(masters, "198.51.100.1/32") == {ports.API}
    assert open_to(masters, "8.8.8.8/32") == set()
    assert open_to(masters, "10.78.0.99/32") == {ports.API, ports.API_MONITOR}
    assert open_to(workers, "203.0.113.7/32") == {22}
    assert open_to(workers, "198.51.100.1/32") == set()
    from_workers = {
        p.get("FromPort")
        for p in masters["IpPermissions"]
        if workers["GroupId"] in {pair["GroupId"] for pair in p["UserIdGroupPairs"]}
    }
    assert ports.ETCD_CLIENT not in from_workers
    assert None not in from_workers


def test_the_load_balancer_asks_each_machines_own_monitor(moto, proxy, fresh, tmp_path):
    source, draft = fresh(), draft_of(tmp_path)
    source.make(draft, Silent())

    elb = moto.client("elbv2")
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    (targets,) = elb.describe_target_groups()["TargetGroups"]
    assert balancer["Type"] == "network"
    assert (targets["HealthCheckPort"], targets["HealthCheckPath"]) == ("7480", "/readyz")
    health = elb.describe_target_health(TargetGroupArn=targets["TargetGroupArn"])
    masters = {i["InstanceId"] for name, i in named(moto).items() if name.startswith("m")}
    assert {t["Target"]["Id"] for t in health["TargetHealthDescriptions"]} == masters
    assert source.api_name(draft) == balancer["DNSName"]


def test_the_bucket_is_versioned_encrypted_and_private(moto, proxy, fresh, tmp_path):
    fresh().make(draft_of(tmp_path), Silent())

    s3, name = moto.client("s3"), f"clusterctl-demo-{ACCOUNT}-{REGION}"
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values())
    rules = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    policy = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_a_second_run_changes_nothing(moto, proxy, fresh, tmp_path):
    draft = draft_of(tmp_path)
    fresh().make(draft, Silent())
    proxy.calls.clear()

    source = fresh()
    assert source.missing(draft) == ()
    source.make(draft, Silent())

    assert proxy.changes == []


def test_what_was_changed_by_hand_is_put_right(moto, proxy, fresh, tmp_path):
    draft = draft_of(tmp_path)
    fresh().make(draft, Silent())
    before = picture(moto)
    ec2, name = moto.client("ec2"), f"clusterctl-demo-{ACCOUNT}-{REGION}"
    (masters,) = [
        g["GroupId"]
        for g in ec2.describe_security_groups()["SecurityGroups"]
        if g["GroupName"] == "clusterctl-demo-masters"
    ]
    ec2.authorize_security_group_ingress(
        GroupId=masters, IpProtocol="tcp", FromPort=2379, ToPort=2379, CidrIp="0.0.0.0/0"
    )
    moto.client("s3").put_bucket_versioning(
        Bucket=name, VersioningConfiguration={"Status": "Suspended"}
    )
    moto.client("iam").put_role_policy(
        RoleName=f"clusterctl-demo-{REGION}-masters",
        PolicyName="clusterctl",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
            }
        ),
    )

    source = fresh()
    assert set(source.missing(draft)) == {
        "ports closed in security group masters",
        "bucket's versions",
        "policy of role masters",
    }
    source.make(draft, Silent())

    assert picture(moto) == before


def test_the_group_is_resized_by_one_call(moto, proxy, fresh, tmp_path):
    fresh().make(draft_of(tmp_path), Silent())
    proxy.calls.clear()

    fresh().make(draft_of(tmp_path, group=5), Silent())

    assert proxy.changes == ["UpdateAutoScalingGroup"]
    (group,) = moto.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["DesiredCapacity"] == 5


def test_scale_changes_the_size_at_once_and_the_plan_says_that_up_brings_it_back(
    moto, proxy, fresh, tmp_path
):
    fresh().make(draft_of(tmp_path), Silent())
    path = write(tmp_path)
    proxy.calls.clear()

    done = command(proxy, tmp_path, "ec2", "scale", path, "7", "--yes", **CREDENTIALS)

    assert done.returncode == 0, done.stderr
    assert proxy.changes == ["UpdateAutoScalingGroup"]
    (group,) = moto.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (7, 7, 7)
    assert "grows from 2 to 7" in " ".join(done.stdout.split())
    assert f'{path} has "group": 2' in done.stderr
    planned = {thing.what: thing.detail for thing in fresh().planned(draft_of(tmp_path))}
    assert planned == {"size of group": "7 -> 2 workers, as in the inventory"}
    # The same if the inventory no longer has a group.
    planned = {thing.what: thing.detail for thing in fresh().planned(draft_of(tmp_path, group=0))}
    assert planned == {"size of group": "7 -> 0 workers, as in the inventory"}


@pytest.mark.parametrize(
    ("workers", "group", "expected"),
    [
        ("1001", 2, "0 to 1000 workers, not 1001"),
        ("2", 0, "has no Auto Scaling group"),
        ("2", 2, "does not exist yet"),
    ],
)
def test_what_scale_refuses(moto, proxy, tmp_path, workers, group, expected):
    path = write(tmp_path, group=group)
    done = command(proxy, tmp_path, "ec2", "scale", path, workers, "--yes", **CREDENTIALS)
    assert done.returncode == 5
    assert expected in " ".join(done.stderr.split())
    assert proxy.changes == []


def test_workers_of_the_group_get_the_join_program_at_their_start(moto, proxy, fresh, tmp_path):
    fresh().make(draft_of(tmp_path), Silent())

    (one, _) = (i for i in instances(moto) if i not in named(moto).values())
    data = moto.client("ec2").describe_instance_attribute(
        InstanceId=one["InstanceId"], Attribute="userData"
    )
    text = base64.b64decode(data["UserData"]["Value"])
    assert len(text) < 16 * 1024  # AWS' limit
    config = yaml.safe_load(text)
    (script,) = (f for f in config["write_files"] if f["path"].endswith("/clusterctl-join"))
    checked = subprocess.run(["bash", "-n"], input=script["content"].encode(), check=False)
    assert checked.returncode == 0
    bucket = f"https://s3.{REGION}.amazonaws.com/clusterctl-demo-{ACCOUNT}-{REGION}"
    assert f'"{bucket}/$object"' in script["content"]
    assert not any(secret in text for secret in (b"PRIVATE", b"token-secret"))


def test_what_workers_of_the_group_are_given_is_put_there_once(moto, proxy, fresh, tmp_path):
    draft = draft_of(tmp_path)
    fresh().make(draft, Silent())
    bucket = f"clusterctl-demo-{ACCOUNT}-{REGION}"
    s3 = moto.client("s3")
    s3.delete_bucket_policy(Bucket=bucket)  # it demands TLS, and moto's server has none
    (tmp_path / "kubelet").write_bytes(b"k" * 10000)
    artifacts = {"a" * 64: tmp_path / "kubelet"}
    assert fresh().offered(draft) == ""

    fresh().offer(draft, b"first", artifacts, Silent())
    first = hashlib.sha256(b"first").hexdigest()

    assert fresh().offered(draft) == first
    keys = {thing["Key"] for thing in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert keys == {"join/current", f"join/{first}", f"join/{'a' * 64}.zst"}
    fresh().offer(draft, b"second", artifacts, Silent())
    assert fresh().offered(draft) == hashlib.sha256(b"second").hexdigest()
    assert s3.get_object(Bucket=bucket, Key=f"join/{first}")["Body"].read() == b"first"
    versions = s3.list_object_versions(Bucket=bucket, Prefix=f"join/{'a' * 64}")["Versions"]
    assert len(versions) == 1


def test_a_vpc_that_exists_is_used_and_stays(moto, proxy, fresh, tmp_path):
    ec2 = moto.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    draft = draft_of(tmp_path, vpc=vpc, network="10.99.64.0/20")

    fresh().make(draft, Silent())

    assert {i["VpcId"] for i in named(moto).values()} == {vpc}
    assert len(ec2.describe_internet_gateways()["InternetGateways"]) == 1

    fresh().destroy(draft, Silent())

    left = ours(moto)
    assert left.pop("vpcs") == [vpc]
    assert left.pop("gateways") == [gateway]
    assert {g["GroupName"] for g in left.pop("security groups")} == {"default"}
    assert [t["Associations"][0]["Main"] for t in left.pop("tables")] == [True]
    assert left == {}


# Interruption


def cut_off(act, draft, proxy, after):
    """Run until AWS is unreachable: the answer to a change is lost, and so are all later calls.

    Returns:
        The changes, in order, and whether the run was cut off before its end.
    """
    proxy.reset()
    proxy.cut_after = after
    try:
        act(draft, Silent())
    except MachinesError:
        assert proxy.cut
    else:
        assert not proxy.cut
    cut, made = proxy.cut, proxy.changes
    proxy.reset()
    return made, cut


def chain(fresh, verb, draft, proxy):
    """Repeat a run that is cut off after some changes; return all changes, in order.

    The commit's hash decides after how many changes each run is cut off. `make test-all` cuts off
    after every single change.
    """
    chosen = random.Random(f"{verb} {seed()}")  # noqa: S311
    made, cut = [], True
    while cut:
        after = 1 if seed() == EVERYTHING else chosen.randint(1, 8)
        done, cut = cut_off(getattr(fresh(), verb), draft, proxy, after)
        made += done
        assert len(made) < 200, made
    return made


def test_runs_that_are_cut_off_again_and_again_end_where_one_run_does(moto, proxy, fresh, tmp_path):
    draft = small(tmp_path)
    fresh().make(draft, Silent())
    whole, calls = picture(moto), proxy.changes
    assert len(calls) > 35
    moto.reset()

    made = chain(fresh, "make", draft, proxy)

    assert picture(moto) == whole
    assert sorted(made) == sorted(calls)  # each once: nothing is made twice
    assert fresh().missing(draft) == ()


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_run_that_is_cut_off_in_the_middle_is_finished_by_the_next(
    moto, proxy, fresh, tmp_path, share
):
    draft = draft_of(tmp_path)
    fresh().make(draft, Silent())
    whole, calls = picture(moto), proxy.changes
    moto.reset()

    _, cut = cut_off(fresh().make, draft, proxy, after=int(len(calls) * share))
    assert cut
    fresh().make(draft, Silent())

    assert picture(moto) == whole


def test_a_down_that_is_cut_off_again_and_again_leaves_nothing(moto, proxy, fresh, tmp_path):
    draft = small(tmp_path)
    fresh().make(draft, Silent())

    made = chain(fresh, "destroy", draft, proxy)

    assert len(made) > 20
    assert ours(moto) == {}


# Removal


def test_down_empties_the_account_and_touches_nothing_else(moto, proxy, fresh, tmp_path):
    ec2 = moto.client("ec2")
    other = ec2.create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=other, CidrBlock="10.50.0.0/24")["Subnet"]["SubnetId"]
    ec2.run_instances(ImageId=AMI, MinCount=1, MaxCount=1, SubnetId=subnet)
    draft = draft_of(tmp_path)
    before = ours(moto)
    fresh().make(draft, Silent())
    name = f"clusterctl-demo-{ACCOUNT}-{REGION}"
    # The policy demands TLS, and moto's server has none.
    moto.client("s3").delete_bucket_policy(Bucket=name)
    for content in (b"one", b"two"):
        moto.client("s3").put_object(Bucket=name, Key="etcd/snapshot", Body=content)

    fresh().destroy(draft, Silent())

    assert ours(moto) == before
    fresh().destroy(draft, Silent())
    assert ours(moto) == before


def test_a_machine_that_is_made_anew_has_its_zone_and_its_address(moto, proxy, fresh, tmp_path):
    draft = draft_of(tmp_path)
    fresh().make(draft, Silent())
    before, rest = named(moto), picture(moto)

    assert fresh().remove(draft, ("m2",), Silent())

    assert set(named(moto)) == {"m1", "m3", "w1"}
    source = fresh()
    assert "m2" in source.missing(draft)
    source.make(draft, Silent(), ("m2",))
    after = named(moto)
    assert after["m2"]["InstanceId"] != before["m2"]["InstanceId"]
    for what in ("PrivateIpAddress", "Placement"):
        assert after["m2"][what] == before["m2"][what]
    old, new = (tags_of(m["m2"])["clusterctl:host-key"] for m in (before, after))
    assert old != new
    assert {k: v for k, v in picture(moto).items() if k != "targets"} == {
        k: v for k, v in rest.items() if k != "targets"
    }


def test_a_replacement_that_is_killed_in_between_is_finished_at_the_same_place(
    moto, proxy, fresh, tmp_path
):
    fresh().make(draft_of(tmp_path, masters=["m1"], workers=["w1", "w2", "w3", "w4"]), Silent())
    draft = draft_of(tmp_path, masters=["m1"], workers=["w1", "w3", "w4"])
    place = [named(moto)["w4"][what] for what in ("PrivateIpAddress", "Placement")]
    assert place[0] == "10.78.0.7"
    fresh().remove(draft, ("w4",), Silent())

    fresh().make(draft, Silent(), ("w4",))

    assert [named(moto)["w4"][what] for what in ("PrivateIpAddress", "Placement")] == place


def test_a_stopped_machine_has_its_public_address_before_the_first_login(
    moto, proxy, fresh, tmp_path, monkeypatch
):
    draft = small(tmp_path)
    fresh().make(draft, Silent())
    (machine,) = named(moto).values()
    moto.client("ec2").stop_instances(InstanceIds=[machine["InstanceId"]])
    asked = []
    monkeypatch.setattr(
        logins, "await_login", lambda name, ssh, *_, **__: asked.append(ssh.hostname)
    )
    source = fresh()
    assert "m1" in source.missing(draft)
    waited = []
    account = source._account(draft)
    monkeypatch.setattr(account, "wait", lambda waiter, *_: waited.append(waiter))

    # AWS shows this state for some seconds after the call.
    look = source_module.look
    monkeypatch.setattr(source_module, "look", lambda *given: pending(look(*given), waited))
    source.create(draft, Silent())

    assert waited == ["instance_stopped", "instance_running"]
    (machine,) = named(moto).values()
    assert asked == [machine["PublicIpAddress"]]


def pending(seen, waited):
    """The same view, but machines get public addresses only after a wait for them."""
    if "instance_running" in waited or seen.instances["m1"].state != "running":
        return seen
    one = replace(seen.instances["m1"], state="pending", public="")
    return replace(seen, instances={"m1": one})


def test_objects_that_services_created_are_deleted_first(moto, proxy, fresh, tmp_path):
    draft = small(tmp_path)
    fresh().make(draft, Silent())
    ec2, elb = moto.client("ec2"), moto.client("elbv2")
    owned = [{"Key": "kubernetes.io/cluster/demo", "Value": "owned"}]
    subnet = named(moto)["m1"]["SubnetId"]
    elb.create_load_balancer(Name="a1b2", Type="network", Subnets=[subnet], Tags=owned)
    (vpc,) = (v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"])
    elb.create_target_group(Name="k8s-a1b2", Protocol="TCP", Port=30000, VpcId=vpc, Tags=owned)
    mark = [{"ResourceType": "security-group", "Tags": owned}]
    its = ec2.create_security_group(
        GroupName="k8s-elb-c3", Description="of c3", VpcId=vpc, TagSpecifications=mark
    )["GroupId"]
    classic = moto.client("elb")
    forward = {"Protocol": "TCP", "LoadBalancerPort": 80, "InstancePort": 30001}
    classic.create_load_balancer(
        LoadBalancerName="c3",
        Listeners=[forward],
        Subnets=[subnet],
        SecurityGroups=[its],
        Tags=owned,
    )
    claim = [{"ResourceType": "volume", "Tags": owned}]
    ec2.create_volume(AvailabilityZone=ZONES[0], Size=1, TagSpecifications=claim)
    # clusterctl must keep the rules that the controller adds to the machines' security groups.
    key = [{"Name": "tag:clusterctl:key", "Values": ["security group masters"]}]
    masters = ec2.describe_security_groups(Filters=key)["SecurityGroups"][0]["GroupId"]
    let_in = [
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": its}]},
        {
            "IpProtocol": "tcp",
            "FromPort": 30000,
            "ToPort": 30000,
            "IpRanges": [
                {"CidrIp": "0.0.0.0/0", "Description": "kubernetes.io/rule/nlb/client=a1"}
            ],
        },
    ]
    ec2.authorize_security_group_ingress(GroupId=masters, IpPermissions=let_in)
    assert fresh().missing(draft) == ()

    fresh().destroy(draft, Silent())

    assert ours(moto) == {}
    assert classic.describe_load_balancers()["LoadBalancerDescriptions"] == []


def test_what_others_share_with_the_cluster_stays(moto, proxy, fresh, tmp_path):
    draft = small(tmp_path)
    ec2, elb, classic = (moto.client(service) for service in ("ec2", "elbv2", "elb"))
    theirs = [{"Key": "kubernetes.io/cluster/demo", "Value": "shared"}]
    vpc = ec2.create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.50.0.0/24")["Subnet"]["SubnetId"]
    elb.create_load_balancer(Name="theirs", Type="network", Subnets=[subnet], Tags=theirs)
    elb.create_target_group(Name="theirs", Protocol="TCP", Port=80, VpcId=vpc, Tags=theirs)
    listener = {"Protocol": "TCP", "LoadBalancerPort": 80, "InstancePort": 80}
    classic.create_load_balancer(
        LoadBalancerName="theirs", Listeners=[listener], Subnets=[subnet], Tags=theirs
    )
    mark = [{"ResourceType": "volume", "Tags": theirs}]
    ec2.create_volume(AvailabilityZone=ZONES[0], Size=1, TagSpecifications=mark)
    before = ours(moto)
    fresh().make(draft, Silent())

    fresh().destroy(draft, Silent())

    assert ours(moto) == before
    assert len(classic.describe_load_balancers()["LoadBalancerDescriptions"]) == 1


def test_what_is_still_in_use_is_removed_when_it_no_longer_is(moto, proxy, fresh, tmp_path):
    draft = small(tmp_path)
    fresh().make(draft, Silent())
    proxy.errors = {
        "DeleteSecurityGroup": (400, "DependencyViolation", "it has a dependent object"),
        "DeleteTargetGroup": (400, "ResourceInUse", "it is in use by a listener"),
    }
    proxy.times = {"DeleteSecurityGroup": 3, "DeleteTargetGroup": 1}

    fresh().destroy(draft, Silent())

    assert ours(moto) == {}


def test_what_blocks_a_removal_is_named(moto, proxy, fresh, tmp_path, monkeypatch):
    draft = small(tmp_path)
    fresh().make(draft, Silent())
    subnet = named(moto)["m1"]["SubnetId"]
    ec2 = moto.client("ec2")
    interface = ec2.create_network_interface(SubnetId=subnet, Description="a database of ours")
    proxy.errors["DeleteSubnet"] = (400, "DependencyViolation", "The subnet has dependencies")
    monkeypatch.setattr(removal, "PATIENCE", 0.2)

    with pytest.raises(MachinesError) as error:
        fresh().destroy(draft, Silent())

    assert interface["NetworkInterface"]["NetworkInterfaceId"] in error.value.message
    assert "a database of ours" in error.value.message
    assert "run the same command again" in error.value.hint
    proxy.errors.clear()
    ec2.delete_network_interface(
        NetworkInterfaceId=interface["NetworkInterface"]["NetworkInterfaceId"]
    )
    fresh().destroy(draft, Silent())
    assert ours(moto) == {}


# Refusals by AWS


@pytest.mark.parametrize(
    ("action", "status", "code", "message", "hint"),
    [
        ("RunInstances", 500, "InsufficientInstanceCapacity", "m1", "another `master_type`"),
        ("CreateVpc", 400, "VpcLimitExceeded", "VpcLimitExceeded", "'VPCs per Region'"),
        ("RunInstances", 400, "VcpuLimitExceeded", "m1", "Service Quotas"),
        ("CreateVolume", 400, "InvalidParameterValue", "volume m1: CreateVolume", "goes on"),
        ("CreateRole", 403, "AccessDenied", "no right to call CreateRole", "docs/ec2.md"),
    ],
)
def test_a_refusal_by_aws_is_reported_with_a_hint(
    moto, proxy, fresh, tmp_path, action, status, code, message, hint
):
    draft = small(tmp_path)
    proxy.errors[action] = (status, code, "AWS' own words")

    with pytest.raises(MachinesError) as error:
        fresh().make(draft, Silent())

    assert message in error.value.message
    assert hint in error.value.hint
    proxy.errors.clear()
    fresh().make(draft, Silent())
    assert fresh().missing(draft) == ()


def test_throttling_is_met_by_trying_again(moto, proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")
    proxy.errors = {
        "CreateVpc": (503, "RequestLimitExceeded", "Request limit exceeded."),
        "DescribeSubnets": (503, "RequestLimitExceeded", "Request limit exceeded."),
    }
    proxy.times = {"CreateVpc": 2, "DescribeSubnets": 1}
    draft, source = small(tmp_path), Ec2()

    source.make(draft, Silent())

    assert source.missing(draft) == ()
    assert proxy.calls.count("CreateVpc") == 3


def test_a_profile_that_ec2_does_not_know_yet_is_waited_for(moto, proxy, fresh, tmp_path):
    text = "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
    proxy.errors["RunInstances"] = (400, "InvalidParameterValue", text)
    proxy.times["RunInstances"] = 1
    draft = small(tmp_path)

    fresh().make(draft, Silent())

    assert list(named(moto)) == ["m1"]


def test_a_token_that_is_spent_is_not_used_again(moto, proxy, fresh, tmp_path):
    proxy.errors["RunInstances"] = (400, "IdempotentParameterMismatch", "not the same parameters")
    proxy.times["RunInstances"] = 1
    draft = small(tmp_path)
    fresh().missing(draft)
    (key,) = (tmp_path / "state").rglob("m1.host_key")
    public = key.read_text().split("\n")[-1]

    with pytest.raises(MachinesError, match="IdempotentParameterMismatch"):
        fresh().make(draft, Silent())
    fresh().make(draft, Silent())

    assert tags_of(named(moto)["m1"])["clusterctl:host-key"] != public


# Refusals before any change


def test_rights_that_are_missing_are_named_all_at_once_before_anything_is_made(
    moto, proxy, fresh, tmp_path
):
    for action in ("CreateVpc", "RunInstances", "CreateVolume"):
        proxy.errors[action] = (403, "UnauthorizedOperation", "You are not authorized")

    with pytest.raises(PreflightError) as error:
        fresh().make(small(tmp_path), Silent())

    for action in ("ec2:CreateVpc", "ec2:RunInstances", "ec2:CreateVolume"):
        assert action in str(error.value)
    assert ours(moto) == {}


def test_all_mistakes_of_an_inventory_are_reported_at_once(moto, proxy, fresh, tmp_path):
    draft = draft_of(
        tmp_path, masters=[("m1", {"ssh_user": "admin"})], workers=[], zones=ZONES[:1],
        image="ami-00000000000000000", master_type="t9.huge", key_pair="mine",
    )  # fmt: skip
    draft = draft.model_copy(update={"name": "a-cluster-with-a-name-that-is-too-long"})
    draft = draft.model_copy(
        update={"ec2": draft.ec2.model_copy(update={"zones": ("eu-central-1z",)})}
    )

    with pytest.raises(PreflightError) as error:
        fresh().make(draft, Silent())

    text = str(error.value)
    for part in ("no zone 'eu-central-1z'", "no AMI", "no instance type 't9.huge'",
                 "no key pair 'mine'", "42 characters; AWS takes 32"):  # fmt: skip
        assert part in text
    assert ours(moto) == {}


def test_a_region_that_does_not_exist_is_refused_without_asking_it(proxy, tmp_path):
    with pytest.raises(PreflightError, match="did you mean 'eu-central-1'"):
        Ec2().make(small(tmp_path, region="eu-centrl-1"), Silent())
    assert proxy.calls == []


def test_a_network_that_overlaps_is_refused(moto, proxy, fresh, tmp_path):
    ec2 = moto.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.96.0.0/16")["Vpc"]["VpcId"]
    ec2.create_subnet(VpcId=vpc, CidrBlock="10.96.64.0/24")
    before = ours(moto)
    draft = draft_of(
        tmp_path, vpc=vpc, network="10.96.64.0/20",
        settings={"networks": {"services": "10.98.0.0/16", "pods": "10.244.0.0/16"}},
    )  # fmt: skip
    draft = draft.model_copy(
        update={
            "networks": draft.networks.model_copy(update={"services": IPv4Network("10.96.0.0/20")})
        }
    )

    with pytest.raises(PreflightError) as error:
        fresh().make(draft, Silent())

    assert "overlaps the subnet" in str(error.value)
    assert "10.96.0.0/20 overlaps the VPC's 10.96.0.0/16" in str(error.value)
    assert ours(moto) == before
    with pytest.raises(InventoryError, match="overlaps the network of the pods"):
        draft_of(tmp_path, network="10.244.0.0/16")


def test_a_bucket_of_another_account_is_refused(moto, proxy, fresh, tmp_path):
    proxy.errors["HeadBucket"] = (403, "403", "Forbidden")
    with pytest.raises(
        (PreflightError, MachinesError), match="HeadBucket|belongs to another account"
    ):
        fresh().make(small(tmp_path, bucket="theirs"), Silent())
    assert ours(moto) == {}


def test_a_bucket_of_our_own_with_something_in_it_is_refused(moto, proxy, fresh, tmp_path):
    s3 = moto.client("s3")
    s3.create_bucket(Bucket="holiday", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="holiday", Key="photo", Body=b"x")

    with pytest.raises(PreflightError, match="clusterctl did not make it"):
        fresh().make(small(tmp_path, bucket="holiday"), Silent())

    assert list(ours(moto)) == ["buckets"]


def test_another_owners_cluster_of_the_same_name_is_neither_changed_nor_removed(
    moto, proxy, fresh, tmp_path
):
    fresh().make(small(tmp_path), Silent())
    before = picture(moto)
    theirs = small(tmp_path, owner="another team")

    for act in (fresh().make, fresh().destroy):
        with pytest.raises(PreflightError, match="belongs to the cluster 'demo' of 'team'"):
            act(theirs, Silent())

    assert picture(moto) == before


@pytest.fixture
def operator(moto, monkeypatch):
    """Gives a function: become a user with the documented policy, without some actions.

    moto enforces the policy.
    """

    def become(*without):
        key, secret = moto.user("operator", operators_policy(*without))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        moto.enforce(enforced=True)

    yield become
    moto.enforce(enforced=False)


def test_the_documented_policy_is_enough_to_make_and_remove_everything(
    moto, proxy, tmp_path, operator
):
    operator()
    draft, source = small(tmp_path), Ec2()

    source.make(draft, Silent())
    source.destroy(draft, Silent())

    moto.enforce(enforced=False)
    assert ours(moto) == {}


def test_an_action_that_the_policy_lacks_is_named(moto, proxy, tmp_path, operator):
    operator("iam:PutRolePolicy", "elasticloadbalancing:CreateTargetGroup")

    with pytest.raises(MachinesError, match="no right to call (PutRolePolicy|CreateTargetGroup)"):
        Ec2().make(small(tmp_path), Silent())


# The command line


def command(proxy, tmp_path, *arguments, **environment):
    keep = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    settings = {"AWS_ENDPOINT_URL": proxy.url, "AWS_EC2_METADATA_DISABLED": "true",
                "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "160"}  # fmt: skip
    return subprocess.run(
        [CLUSTERCTL, *arguments], capture_output=True, text=True, timeout=120, check=False,
        env={**keep, **settings, **environment},
    )  # fmt: skip


def test_plan_shows_what_would_be_made_and_what_it_costs_a_month(moto, proxy, tmp_path):
    path = write(tmp_path, group=0)

    done = command(proxy, tmp_path, "plan", path, "-o", "json", **CREDENTIALS)

    assert done.returncode == 2, done.stderr
    plan = json.loads(done.stdout)
    assert plan["machines_to_make"] == ["m1", "m2", "m3", "w1"]
    costs = {thing["what"]: thing["monthly"] for thing in plan["to_make"]}
    # In Frankfurt: 730 h of a t3.medium at 0.048 and of an address at 0.005; 20 GiB at 0.0952.
    assert costs["instance m1"] == pytest.approx(730 * 0.053 + 20 * 0.0952)
    assert costs["vpc"] is None
    assert plan["monthly"] == pytest.approx(sum(c or 0 for c in costs.values()), abs=0.01)
    assert ours(moto) == {}
    assert "vpc" in command(proxy, tmp_path, "plan", path, **CREDENTIALS).stdout


def test_up_asks_before_it_spends_money(moto, proxy, tmp_path):
    done = command(proxy, tmp_path, "up", write(tmp_path), **CREDENTIALS)

    assert done.returncode == 5
    refusal = "refusing to make the machines of"
    assert refusal in done.stderr
    assert "without confirmation; use --yes" in " ".join(done.stderr.split())
    assert ours(moto) == {}


@pytest.mark.parametrize(
    ("code", "environment", "expected"),
    [
        (None, {}, "there are no AWS credentials"),
        ("ExpiredToken", CREDENTIALS, "the AWS credentials have expired"),
        ("InvalidClientTokenId", CREDENTIALS, "AWS does not know these credentials"),
    ],
)
def test_unusable_credentials_are_reported_in_one_line(
    moto, proxy, tmp_path, code, environment, expected
):
    if code:
        proxy.errors["GetCallerIdentity"] = (403, code, "AWS' own words")

    done = command(proxy, tmp_path, "plan", write(tmp_path), **environment)

    assert done.returncode == 8
    assert expected in done.stderr
    assert "aws configure" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hundred_workers_take_no_more_calls_than_two(
    moto, proxy, fresh, tmp_path, record_property
):
    fresh().make(draft_of(tmp_path, group=2), Silent())
    few = sorted(proxy.changes)
    moto.reset()
    proxy.reset()

    began = time.monotonic()
    fresh().make(draft_of(tmp_path, group=100), Silent())
    record_property("seconds", time.monotonic() - began)

    assert sorted(proxy.changes) == few
    assert len(proxy.changes) < 70
    assert len(instances(moto)) == 104
