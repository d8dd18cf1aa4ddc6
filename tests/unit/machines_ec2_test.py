"""EC2 without any call to AWS: AWS' errors, and the desired things."""

import json
import os
from collections import defaultdict
from dataclasses import replace
from fnmatch import fnmatch
from ipaddress import IPv4Address

import pytest
from botocore.exceptions import ClientError, WaiterError

from provision import inventory
from provision.aws import account
from provision.local.progress import Silent
from provision.machines.ec2 import logins, policies, source
from provision.machines.ec2.apply import apply
from provision.machines.ec2.checks import moved
from provision.machines.ec2.checks import region as judge_region
from provision.machines.ec2.desired import lacking, steps
from provision.machines.ec2.keys import Key, Kind, read
from provision.machines.ec2.model import HostKey, Instance, Ref, Seen, Step, World
from provision.machines.ec2.names import names_of
from provision.machines.ec2.placing import addresses, zones_of
from provision.machines.ec2.removal import remove_machines
from provision.machines.ec2.seen import look
from provision.model.errors import MachinesError
from tests.aws import POLICY

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kYg7Oq4Nn3b8m2uFZ1eYpF9w7yq2nq7m4T1m0zYbR"
A, B, C = ZONES = [f"eu-central-1{letter}" for letter in "abc"]
WORLD = World(
    "1" * 12,
    {"masters": "ami-1", "workers": "ami-1"},
    {"masters": "/dev/xvda", "workers": "/dev/xvda"},
    public_key="ssh-ed25519 A",
)


def draft(folder, masters=("m1", "m2", "m3"), workers=(), **given):
    ec2 = {
        "region": "eu-central-1",
        "zones": ZONES,
        "owner": "team",
        "ssh_from": ["203.0.113.7/32"],
        **given,
    }
    cluster = {"name": "demo", "machines": "ec2", "ec2": ec2}
    path = folder / "inventory.py"
    text = f"cluster = {cluster!r}\nmasters = {list(masters)!r}\n"
    path.write_text(text + (f"workers = {list(workers)!r}\n" if workers else ""))
    return inventory.read(path)


def instance(zone, private, state="running"):
    return Instance(f"i-{private}", state, zone, private)


def needed(given, seen):
    """Text of the key -> step that is lacking."""
    keys = {host.name: HostKey("private", "public") for host in given.hosts}
    return {str(step.key): step for step in lacking(steps(given, WORLD, seen, keys), seen)}


def error(code, text):
    return ClientError({"Error": {"Code": code, "Message": text}}, "X")


PROFILE = "Value (demo) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
TEMPLATE = "You must use a valid fully-formed launch template."


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("InvalidVpcID.NotFound", "The vpc ID 'vpc-1' does not exist"),
        ("InvalidParameterValue", PROFILE),
        ("ValidationError", "Invalid IamInstanceProfile: demo"),
        ("ValidationError", f"{TEMPLATE} {PROFILE}"),
        (
            "ValidationError",
            f"{TEMPLATE} The specified launch template, with template ID lt-1, does not exist.",
        ),
        ("NoSuchEntity", "The role with name demo cannot be found."),
        (
            "InvalidTarget",
            "The following targets are not in a running state and cannot be registered: 'i-1'",
        ),
        ("IncorrectState", "The volume is creating"),
    ],
)
def test_calls_for_things_that_aws_does_not_know_yet_are_repeated(monkeypatch, code, text):
    monkeypatch.setattr(account.time, "sleep", lambda _: None)
    answers = [error(code, text), "made"]

    def call():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert account.patiently(call) == "made"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("InvalidParameterValue", "Invalid availability zone"),
        ("ValidationError", f"{TEMPLATE} The requested instance type is not supported"),
        ("InvalidTarget", "The target i-1 is not in the VPC"),
        ("UnauthorizedOperation", "no"),
    ],
)
def test_permanent_errors_are_not_retried(monkeypatch, code, text):
    monkeypatch.setattr(account.time, "sleep", lambda _: pytest.fail("tried again"))

    def call():
        raise error(code, text)

    with pytest.raises(ClientError):
        account.patiently(call)


# Keys


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.OTHER])
def test_a_key_is_read_from_its_text_as_it_was(kind):
    key = Key(kind, "eu-central-1a" if "{}" in kind.value else "")
    assert read(str(key)) == key


def test_a_tag_that_is_not_known_is_kept_as_it_is():
    assert read("something else") == Key(Kind.OTHER, "something else")
    assert str(read("something else")) == "something else"


def test_the_digest_of_a_launch_template_has_keys_as_text():
    # Another digest would give every group a new version of its template.
    assert repr(Ref(Key(Kind.SECURITY_GROUP, "workers"))) == "Ref(key='security group workers')"


# Zones and addresses


def test_machines_of_each_side_are_spread_over_the_zones_in_the_inventorys_order(tmp_path):
    given = draft(tmp_path, workers=["w1", "w2", "w3", "w4"])

    assert zones_of(given, Seen()) == {
        "m1": A, "m2": B, "m3": C, "w1": A, "w2": B, "w3": C, "w4": A,
    }  # fmt: skip
    assert [str(address) for address in addresses(given, Seen()).values()] == [
        "10.0.0.5", "10.0.16.5", "10.0.32.5", "10.0.0.6", "10.0.16.6", "10.0.32.6", "10.0.0.7",
    ]  # fmt: skip


def test_a_new_master_gets_a_zone_without_a_master(tmp_path):
    there = {"m2": instance(B, "10.0.16.5"), "m3": instance(C, "10.0.32.5")}
    given = draft(tmp_path, masters=["m2", "m3", "m4"])

    assert zones_of(given, Seen(instances=there)) == {"m2": B, "m3": C, "m4": A}


def test_a_machine_is_made_anew_where_its_volume_is(tmp_path):
    seen = Seen(
        ids={read("volume m3"): "vol-3"},
        instances={"m2": instance(B, "10.0.16.5")},
        volumes={"m3": C},
    )

    made = needed(draft(tmp_path, masters=["m2", "m3", "m4"]), seen)

    assert made["instance m3"].detail == f"t3.medium in {C}"
    interface = made["instance m3"].request["NetworkInterfaces"][0]
    assert interface["SubnetId"].key == Key(Kind.SUBNET, C)
    assert interface["PrivateIpAddress"].startswith("10.0.32.")
    assert made["volume m4"].request["AvailabilityZone"] == A


def test_a_volume_in_a_zone_that_the_inventory_no_longer_has_is_named(tmp_path):
    seen = Seen(
        ids={read("volume m1"): "vol-1"}, volumes={"m1": "eu-central-1d", "gone": "eu-central-1e"}
    )

    (finding,) = moved(draft(tmp_path), seen)

    assert finding.where == "volume m1"
    assert "eu-central-1d" in finding.what


def test_a_machine_that_was_removed_comes_back_where_it_was(tmp_path):
    given = draft(tmp_path, masters=["m1"], workers=["w1", "w2", "w3"])
    there = {
        "m1": instance(A, "10.0.0.5"),
        "w1": instance(A, "10.0.0.6"),
        "w3": instance(A, "10.0.0.7"),
    }
    seen = Seen(instances=there, left={"w2": (A, "10.0.0.9")})

    assert zones_of(given, seen)["w2"] == A
    assert addresses(given, seen)["w2"] == IPv4Address("10.0.0.9")


@pytest.mark.parametrize(
    "left",
    [
        {"w2": ("eu-central-1d", "10.0.48.5")},
        {"w2": (B, "10.0.16.77"), "w3": (B, "10.0.16.77")},
        {"w2": (A, "10.0.0.6")},
    ],
)
def test_a_place_that_is_no_more_or_taken_is_not_given_again(tmp_path, left):
    given = draft(tmp_path, masters=["m1"], workers=["w1", "w2", "w3"])
    seen = Seen(instances={"w1": instance(A, "10.0.0.6")}, left=left)

    where, zones = addresses(given, seen), zones_of(given, seen)

    assert len(set(where.values())) == 4
    assert set(zones.values()) <= set(ZONES)


# Machines that end before they are used


ENDED = {
    "InstanceId": "i-1",
    "State": {"Name": "terminated"},
    "StateReason": {"Message": "Client.VolumeLimitExceeded: Volume limit exceeded"},
}
M1 = Key(Kind.INSTANCE, "m1")
RUN = Step(M1, "ec2", "run_instances", {}, "Instances.0.InstanceId")
CHECK = Step(
    Key(Kind.SOURCE_CHECK, "m1"),
    "ec2",
    "modify_instance_attribute",
    {"InstanceId": Ref(M1)},
    once=("instance_running", M1),
)


class Answers:
    """An account that gives these answers, or raises them."""

    def __init__(self, **answers):
        self.answers, self.calls = answers, []

    def give(self, what):
        self.calls.append(what)
        answer = self.answers.get(what, {})
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, service, action, **request):
        return self.give(action)

    def wait(self, waiter, request):
        return self.give(waiter)


@pytest.mark.parametrize(
    ("steps", "answers"),
    [
        ([RUN], {"run_instances": {"Instances": [ENDED]}}),
        (
            [RUN, CHECK],
            {
                "run_instances": {"Instances": [{**ENDED, "State": {"Name": "pending"}}]},
                "instance_running": WaiterError(
                    "InstanceRunning",
                    "Waiter encountered a terminal failure state",
                    {"Reservations": [{"Instances": [ENDED]}]},
                ),
            },
        ),
    ],
)
def test_a_terminated_machine_is_reported_with_the_reason_and_not_requested_again(steps, answers):
    spent = []

    with pytest.raises(MachinesError, match=r"instance m1 \(i-1\) has ended: .*Volume limit"):
        apply(Answers(**answers), steps, {}, Silent(), spent.append)

    assert spent == [M1]


def test_a_changed_request_gets_another_token():
    mismatch = error("IdempotentParameterMismatch", "not the same parameters")
    spent = []

    with pytest.raises(MachinesError) as raised:
        apply(Answers(run_instances=mismatch), [RUN], {}, Silent(), spent.append)

    assert spent == [M1]
    assert "makes another" in raised.value.hint


# Machines on their way out, or off


def test_a_machine_that_shuts_down_keeps_its_address_until_it_has_ended(tmp_path):
    seen = Seen(
        ids={read("volume m2"): "vol-2"},
        volumes={"m2": B},
        leaving={
            "m2": instance(B, "10.0.16.9", "shutting-down"),
            "other": instance(A, "10.0.0.5", "shutting-down"),
        },
    )

    made = needed(draft(tmp_path), seen)

    run = made["instance m2"]
    assert run.once == ("instance_terminated", "i-10.0.16.9")
    assert run.request["NetworkInterfaces"][0]["PrivateIpAddress"] == "10.0.16.9"
    assert made["instance m1"].once == ("", "")
    assert made["instance m1"].request["NetworkInterfaces"][0]["PrivateIpAddress"] == "10.0.0.6"


@pytest.mark.parametrize("state", ["running", "shutting-down"])
def test_a_volume_is_deleted_only_when_its_machine_has_ended(state):
    there = {"m2": instance(B, "10.0.16.5", state)}
    seen = Seen(
        ids={read("volume m2"): "vol-2"},
        **({"instances": there} if state == "running" else {"leaving": there}),
    )
    answers = Answers()

    remove_machines(answers, seen, ["m2"])

    assert answers.calls[-2:] == ["instance_terminated", "delete_volume"]
    assert ("terminate_instances" in answers.calls) == (state == "running")


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_a_machine_that_is_off_or_nearly_is_started_once_it_is_off(tmp_path, state):
    seen = Seen(
        ids={M1: "i-1", read("volume m1"): "vol-1", read("volume m1 at its machine"): ""},
        instances={"m1": instance(A, "10.0.0.5", state)},
    )

    made = needed(draft(tmp_path, masters=["m1"]), seen)

    answers = Answers()
    apply(answers, [made["start of m1"]], {}, Silent(), print)
    assert answers.calls == ["instance_stopped", "start_instances"]
    assert Key(Kind.START, "m1") in made["source check of m1"].needs


# What there is


class Described(Answers):
    """An account in which there is nothing but these answers."""

    def call(self, service, action, **request):
        if action in self.answers:
            return self.answers[action]
        if service in {"iam", "s3", "elbv2"}:
            raise error("404", "there is none")
        return defaultdict(list)

    def pages(self, service, action, items, **request):
        return self.answers.get(action, {}).get(items, [])


def tagged(key):
    values = {"clusterctl:cluster": "demo", "clusterctl:owner": "team", "clusterctl:key": key}
    return [{"Key": name, "Value": value} for name, value in values.items()]


def seen_of(given, **answers):
    return look(Described(**answers), given, names_of(given, "1" * 12))


def test_things_that_are_being_deleted_count_as_absent(tmp_path):
    def described(name, state):
        return {
            "InstanceId": f"i-{name}-{state}",
            "State": {"Name": state},
            "Placement": {"AvailabilityZone": A},
            "PrivateIpAddress": "10.0.0.5",
            "Tags": tagged(f"instance {name}"),
        }

    def volume(name, state):
        return {
            "VolumeId": f"vol-{name}",
            "State": state,
            "AvailabilityZone": B,
            "Attachments": [],
            "Tags": tagged(f"volume {name}"),
        }

    machines = [
        described("m1", "shutting-down"),
        described("m1", "running"),
        described("m2", "shutting-down"),
    ]

    seen = seen_of(
        draft(tmp_path),
        describe_instances={"Reservations": [{"Instances": machines}]},
        describe_volumes={"Volumes": [volume("m1", "in-use"), volume("m2", "deleting")]},
    )

    assert {key for key in seen.ids if key.kind in {Kind.INSTANCE, Kind.VOLUME}} == {
        M1, Key(Kind.VOLUME, "m1"),
    }  # fmt: skip
    assert seen.instances["m1"].id == "i-m1-running"
    assert seen.leaving["m2"].id == "i-m2-shutting-down"
    assert seen.volumes == {"m1": B}


def test_the_buckets_tags_are_compared_in_any_order(tmp_path):
    given = draft(tmp_path)
    wanted = next(
        step for step in steps(given, WORLD, Seen(), {}) if str(step.key) == "bucket's tags"
    ).request["Tagging"]["TagSet"]

    seen = seen_of(given, head_bucket={}, get_bucket_tagging={"TagSet": wanted[::-1]})

    made = needed(given, seen)
    assert "bucket's versions" in made
    assert "bucket's tags" not in made


def test_a_rule_of_a_protocol_without_ports_is_closed_as_any_other(tmp_path):
    esp = {"IpProtocol": "50", "IpRanges": [{"CidrIp": "192.0.2.0/24"}], "UserIdGroupPairs": []}
    group = {
        "GroupId": "sg-1",
        "Tags": tagged("security group workers"),
        "IpPermissions": [esp],
    }
    given = draft(tmp_path)

    seen = seen_of(given, describe_security_groups={"SecurityGroups": [group]})

    (closed,) = needed(given, seen)["ports closed in security group workers"].request[
        "IpPermissions"
    ]
    assert closed == {"IpProtocol": "50", "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}


@pytest.mark.parametrize(
    ("region", "partition"), [("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn")]
)
def test_a_region_of_another_partition_is_refused(tmp_path, region, partition):
    (finding,) = judge_region(draft(tmp_path, region=region, zones=[f"{region}a"]))

    assert finding.where == "cluster.ec2.region"
    assert f"{region} is in {partition}" in finding.what
    assert judge_region(draft(tmp_path)) == []


# Logins


@pytest.mark.parametrize(
    ("ssh", "hint"), [("public", "`ssh_from`"), ("ssm", "describe-instance-information")]
)
def test_the_hint_after_a_failed_login_fits_the_ssh_route(tmp_path, monkeypatch, ssh, hint):
    (tmp_path / "bin").mkdir()
    refusing = tmp_path / "bin" / "ssh"
    refusing.write_text("#!/bin/sh\necho Connection timed out >&2\nexit 255\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(logins, "LOGIN_TIMEOUT", 0)
    ec2 = source.Ec2()
    there = replace(instance(A, "10.0.0.5"), host_key=PUBLIC)
    ec2._seen = Seen(instances={"m1": there})
    given = draft(tmp_path, masters=["m1"], ssh=ssh, image="ubuntu-24.04")

    with pytest.raises(MachinesError, match="no SSH login") as raised:
        logins.await_logins(given, ec2.locate(given), ("m1",), Silent())

    assert hint in raised.value.hint
    assert ("`ssh_from`" in raised.value.hint) == (ssh == "public")


# The operator's policy


def test_the_policy_lets_tag_only_by_the_calls_that_make_and_tag(tmp_path):
    policy = json.loads(POLICY.read_text())
    made = list(steps(draft(tmp_path, group=1), WORLD, Seen(), {}))

    for service, action, argument in (
        ("ec2", "ec2:CreateTags", "TagSpecifications"),
        ("elbv2", "elasticloadbalancing:AddTags", "Tags"),
    ):
        (statement,) = (s for s in policy["Statement"] if action in s["Action"])
        allowed = statement["Condition"]["StringEquals"][f"{action.split(':')[0]}:CreateAction"]
        tagging = (s for s in made if s.service == service and argument in s.request)
        assert set(allowed) == {account.api_name(step.action) for step in tagging}
    (group,) = (step for step in made if step.key.kind is Kind.GROUP)
    (statement,) = (
        s for s in policy["Statement"] if "autoscaling:CreateOrUpdateTags" in s["Action"]
    )
    name = group.request["AutoScalingGroupName"]
    assert fnmatch(f"autoScalingGroupName/{name}", statement["Resource"].split(":")[-1])


def test_the_policy_lets_attach_and_pass_only_what_is_attached_and_passed():
    policy = json.loads(POLICY.read_text())

    def condition(action):
        (statement,) = (s for s in policy["Statement"] if action in s["Action"])
        return statement["Condition"]

    assert condition("iam:AttachRolePolicy") == {"ArnEquals": {"iam:PolicyARN": policies.SSM}}
    passed = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    assert condition("iam:PassRole") == passed
