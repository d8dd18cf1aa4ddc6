"""The cloud controller on EC2, as far as it can be seen without a cluster."""

import json
import subprocess

import pytest
import yaml

from provision.artifacts import catalogue, recipes
from provision.desired.catalog import UNITS, artifacts_of
from provision.desired.components import node
from provision.desired.components.cloud_controller import CLOUD_CONTROLLER, SCRIPT
from provision.machines.ec2 import seen, service_rights
from provision.model.settings.ec2 import Ec2
from provision.pki import table
from tests.world import DEFAULT, LAB, all_manifests, cluster, master, trust, worker

EC2 = Ec2(region="eu-central-1", zones=("eu-central-1a",), owner="team")
ON_EC2 = cluster(master("m1"), worker("w1"), source="ec2", ec2=EC2)
SCHEDULABLE = cluster(master("m1"), source="ec2", ec2=EC2, masters_schedulable=True)
INSTANCE = """
<item><instanceId>{id}</instanceId><imageId/>
  {before}
  <instanceType>t3.medium</instanceType>
  <privateIpAddress>{address}</privateIpAddress>
  <placement><availabilityZone>{zone}</availabilityZone><groupName/><tenancy>default</tenancy></placement>
  {after}
</item>"""
INTERFACES = """<networkInterfaceSet><item>
    <networkInterfaceId>eni-1</networkInterfaceId><privateIpAddress>10.0.0.9</privateIpAddress>
    <attachment><instanceId>i-other</instanceId></attachment>
    <privateIpAddressesSet><item><privateIpAddress>10.0.0.99</privateIpAddress></item></privateIpAddressesSet>
  </item></networkInterfaceSet>"""
ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse><reservationSet><item><instancesSet>{instances}
</instancesSet></item></reservationSet></DescribeInstancesResponse>"""
FAKE_KUBECTL = """kubectl() {{
case $1 in
get) cat {told} ;;
*) echo "$*" >> {done} ;;
esac
}}"""


def state(of=ON_EC2):
    return CLOUD_CONTROLLER.state(of, of.machine("m1"), trust(), LAB)


def content(path, of=ON_EC2):
    (file,) = (file for file in state(of).files if file.path == path)
    return file.content.decode()


@pytest.mark.parametrize("interfaces_first", [True, False])
def test_a_node_gets_its_instance_zone_and_type_unless_it_has_an_instance(
    tmp_path, interfaces_first
):
    wanted = {"10.0.0.5": ("i-zzz", "eu-central-1a"), "10.0.0.6": ("i-aaa", "eu-central-1b")}
    before, after = (INTERFACES, "") if interfaces_first else ("", INTERFACES)
    instances = "".join(
        INSTANCE.format(address=address, id=id_, zone=zone, before=before, after=after)
        for address, (id_, zone) in wanted.items()
    )
    (tmp_path / "answer").write_text(ANSWER.format(instances=instances))
    (tmp_path / "told").write_text("10.0.0.5 m1 \n10.0.0.6 w1 aws:///z/i-aaa\n10.0.0.7 w2 \n w3 \n")
    (tmp_path / "work").mkdir()
    functions, _, _ = content(SCRIPT).partition("\nwhile :; do")
    fakes = FAKE_KUBECTL.format(told=tmp_path / "told", done=tmp_path / "done")
    curl = f'curl() {{ cp "{tmp_path}/answer" "$work/answer"; }}\ncredentials() {{ :; }}'
    subprocess.run(
        ["sh", "-c", f"{functions}\n{fakes}\n{curl}\nturn"],
        env={"PATH": "/usr/bin:/bin", "RUNTIME_DIRECTORY": str(tmp_path / "work")},
        check=True,
        capture_output=True,
    )

    assert (tmp_path / "done").read_text().splitlines() == [
        (
            "label node m1 --overwrite topology.kubernetes.io/region=eu-central-1 "
            "topology.kubernetes.io/zone=eu-central-1a node.kubernetes.io/instance-type=t3.medium"
        ),
        'patch node m1 --patch {"spec":{"providerID":"aws:///eu-central-1a/i-zzz"}}',
    ]


def test_only_masters_on_ec2_have_the_cloud_controller():
    assert CLOUD_CONTROLLER.wanted(ON_EC2, ON_EC2.machine("m1"))
    assert not CLOUD_CONTROLLER.wanted(ON_EC2, ON_EC2.machine("w1"))
    assert not any(CLOUD_CONTROLLER.wanted(DEFAULT, machine) for machine in DEFAULT.machines)
    assert {unit.name for unit in state().units} <= set(UNITS)
    assert "cloud-controller" not in {m.name for m in all_manifests(DEFAULT)}


def test_the_unpublished_controller_has_a_recipe_and_is_needed_only_on_ec2():
    pinned = {name for name, _ in catalogue.catalogue().pins("1.36.3")}
    assert set(artifacts_of(ON_EC2, trust())) - pinned == recipes.UNPUBLISHED
    assert not set(artifacts_of(DEFAULT, trust())) & recipes.UNPUBLISHED
    for name in recipes.UNPUBLISHED:
        assert recipes.plan(name, "arm64", "1.36.3").version


def test_its_certificates_are_in_the_table_and_its_user_is_in_the_rules():
    leaves = table.node_leaves(ON_EC2, ON_EC2.machine("m1"))
    assert set(state().leaves) <= set(leaves)
    (text,) = (m.content for m in all_manifests(ON_EC2) if m.name == "cloud-controller")
    subjects = {
        subject["name"]
        for document in yaml.safe_load_all(text)
        for subject in document.get("subjects", ())
    }
    client, _ = state().leaves
    assert subjects == {client.common_name}


def test_an_endpoint_of_the_inventorys_own_is_the_controllers_too():
    own = cluster(source="ec2", ec2=EC2.model_copy(update={"endpoint": "http://10.0.0.1:5000"}))
    unit = "/etc/systemd/system/aws-cloud-controller-manager.service"
    assert "Environment=AWS_ENDPOINT_URL=http://10.0.0.1:5000\n" in content(unit, own)
    assert "AWS_ENDPOINT_URL" not in content(unit)


def test_masters_are_targets_of_load_balancers_only_where_ordinary_pods_run_on_them():
    assert node.NO_TARGET in node.labels(ON_EC2, ON_EC2.machine("m1"))
    assert node.NO_TARGET not in node.labels(ON_EC2, ON_EC2.machine("w1"))
    assert node.NO_TARGET not in node.labels(SCHEDULABLE, SCHEDULABLE.machine("m1"))
    assert node.NO_TARGET not in node.labels(DEFAULT, DEFAULT.machine("m1"))


def test_rules_that_the_cloud_controller_made_are_left_alone():
    ranges = [
        {"CidrIp": "0.0.0.0/0", "Description": "kubernetes.io/rule/nlb/client=a1"},
        {"CidrIp": "192.0.2.0/24", "Description": "somebody's"},
        {"CidrIp": "198.51.100.0/24"},
    ]
    permission = {"IpProtocol": "tcp", "FromPort": 30000, "ToPort": 30000, "IpRanges": ranges}
    rules = seen._rules({**permission, "UserIdGroupPairs": []})
    assert [rule.network for rule in rules] == ["192.0.2.0/24", "198.51.100.0/24"]


def test_masters_change_and_remove_only_what_carries_the_clusters_tag():
    changing = (
        "Modify",
        "Delete",
        "Deregister",
        "Register",
        "Revoke",
        "Authorize",
        "Set",
        "Detach",
    )
    for statement in service_rights.statements("demo"):
        verbs = [action.partition(":")[2] for action in statement["Action"]]
        if any(verb.startswith(changing) for verb in verbs):
            (condition,) = statement["Condition"].values()
            assert list(condition) == ["aws:ResourceTag/kubernetes.io/cluster/demo"]
    # AWS' limit for all policies of a role together.
    assert len(json.dumps(service_rights.statements("d" * 40))) < 6000
