"""The program that lets workers of the Auto Scaling group in, without EC2: what it reads and does."""

import subprocess

import pytest

from provision.commands.certs.rotation import refuse_cutting_off
from provision.desired.components.group import GROUP, LABEL, SCRIPT
from provision.model.errors import RefusedError
from provision.model.observed import ApiView, NodeView
from provision.model.settings.ec2 import Ec2
from tests.world import LAB, cluster, master, trust, worker

INSTANCE = """
      <item>
        <instanceId>{id}</instanceId>
        <imageId/>
        <instanceState><code>16</code><name>{state}</name></instanceState>
        {address}
        <monitoring><state>disabled</state></monitoring>
        <sourceDestCheck>{check}</sourceDestCheck>
        <networkInterfaceSet><item><privateIpAddress>10.0.0.99</privateIpAddress>
          <sourceDestCheck>true</sourceDestCheck></item></networkInterfaceSet>
        <iamInstanceProfile><id>other</id></iamInstanceProfile>
      </item>"""
ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>r</requestId>
  <reservationSet>
    <item><reservationId>r-1</reservationId><instancesSet>{instances}
    </instancesSet></item>
  </reservationSet>{more}
</DescribeInstancesResponse>
"""
CURL = """#!/bin/sh
echo "$@" >>{root}/calls
case "$*" in
*api/token*) echo token ;;
*security-credentials/) echo role ;;
*security-credentials/role) echo '{{"AccessKeyId": "k", "SecretAccessKey": "s", "Token": "t"}}' ;;
*DescribeInstances*) cp {root}/answer {root}/work/answer ;;
*) : >{root}/work/answer ;;
esac
"""
KUBECTL = """#!/bin/sh
shift 3
echo "kubectl $@" >>{root}/calls
case "$*" in *"get nodes"*) cat {root}/nodes ;; *apply*) cat >>{root}/applied ;; esac
"""


@pytest.fixture
def turn(tmp_path):
    """Run one turn: what EC2 says, Nodes and whether they are marked -> what was called."""
    state = GROUP.state(
        cluster(master("m1"), worker("w1"), source="ec2", ec2=Ec2(region="r", bucket="b")),
        master("m1"),
        trust(),
        LAB,
    )
    (file,) = (file for file in state.files if file.path == SCRIPT)
    script = file.content.decode()
    for name, text in (("curl", CURL), ("kubectl", KUBECTL), ("certs", "#!/bin/sh\n")):
        fake = tmp_path / "bin" / name
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(text.format(root=tmp_path))
        fake.chmod(0o755)
    (tmp_path / "work").mkdir()
    program, _, _ = script.partition("\nwhile :; do")
    program = program.replace("PATH=/", f"PATH={tmp_path}/bin:/", 1)
    program = program.replace("/usr/local/bin/kubectl", f"{tmp_path}/bin/kubectl")
    program = program.replace("/usr/local/sbin/clusterctl-certs", "certs")
    program = program.replace("/run/clusterctl-group", f"{tmp_path}/work")

    def run(*instances, nodes, more=""):
        items = "".join(
            INSTANCE.format(
                id=id_,
                state=state,
                check=check,
                address=f"<privateIpAddress>{address}</privateIpAddress>" if address else "",
            )
            for id_, state, address, check in instances
        )
        (tmp_path / "answer").write_text(ANSWER.format(instances=items, more=more))
        lines = (
            f"{name} map[a:b {'clusterctl/group:' if marked else ''} z:]\n"
            for name, marked in nodes.items()
        )
        (tmp_path / "nodes").write_text("".join(lines))
        (tmp_path / "calls").unlink(missing_ok=True)
        subprocess.run(
            ["sh", "-c", f"{program}\nturn\n"],
            env={"RUNTIME_DIRECTORY": f"{tmp_path}/work"},
            check=False,
        )
        return (tmp_path / "calls").read_text()

    return run


RUNNING = ("i-1", "running", "10.0.0.7", "true")


def test_a_joining_worker_gets_a_token_and_its_source_check_is_off(turn, tmp_path):
    calls = turn(RUNNING, nodes={"m1": False})
    assert (tmp_path / "work/instances").read_text() == "i-1 running 10.0.0.7 true\n"
    assert "Action=ModifyInstanceAttribute" in calls
    token = (tmp_path / "work/token").read_text().strip()
    first, second = token.split(".")
    assert f'token-secret: "{second}"' in (tmp_path / "applied").read_text()
    assert f"-T {tmp_path}/work/token https://s3.r.amazonaws.com/b/join/token" in calls
    # Every user of the machine can see the arguments of processes.
    assert second not in calls
    assert (tmp_path / "work/token").stat().st_mode & 0o777 == 0o600
    again = turn(("i-1", "running", "10.0.0.7", "false"), nodes={"m1": False})
    assert (tmp_path / "work/token").read_text().strip() == token
    assert "ModifyInstanceAttribute" not in again
    joined = turn(RUNNING, nodes={"m1": False, "i-1": True})
    assert f"delete secret bootstrap-token-{first}" in joined
    assert "-X DELETE https://s3.r.amazonaws.com/b/join/token" in joined
    assert not (tmp_path / "work/token").exists()


def test_a_joined_worker_is_labelled_once(turn):
    calls = turn(RUNNING, nodes={"m1": False, "i-1": False})
    assert "label node i-1 --overwrite node-role.kubernetes.io/worker= clusterctl/group=" in calls
    assert "label node" not in turn(RUNNING, nodes={"m1": False, "i-1": True})


@pytest.mark.parametrize("state", ["shutting-down", "terminated", None])
def test_the_node_of_a_terminated_instance_is_deleted(turn, state):
    gone = [("i-1", state, "", "")] if state else []
    other = ("i-2", "running", "10.0.0.8", "false")
    calls = turn(*gone, other, nodes={"m1": False, "w1": False, "i-1": True, "i-2": True})
    assert calls.count("delete node") == 1
    assert "delete node i-1 " in calls


@pytest.mark.parametrize("state", ["pending", "running", "stopping", "stopped"])
def test_the_node_of_a_stopped_instance_stays(turn, state):
    calls = turn(("i-1", state, "10.0.0.7", "false"), nodes={"m1": False, "i-1": True})
    assert "delete node" not in calls


def test_nodes_that_are_not_the_groups_are_not_touched(turn):
    calls = turn(nodes={"m1": False, "w1": False, "i-9": False})
    assert "delete node" not in calls
    assert "label node" not in calls


def test_a_partial_list_of_instances_deletes_no_node(turn):
    calls = turn(RUNNING, nodes={"i-1": True, "i-2": True}, more="<nextToken>n</nextToken>")
    assert "delete node" not in calls


def test_an_authority_is_not_dropped_while_group_workers_lack_the_new_one():
    of = cluster(master("m1"), source="ec2")
    others = (NodeView("m1", ready=True),)
    refuse_cutting_off(of, ApiView(ready=True, nodes=others))
    group = ApiView(ready=True, nodes=(*others, NodeView("i-1", ready=True, labels={LABEL: ""})))
    with pytest.raises(RefusedError, match="would lose the cluster: i-1$") as refused:
        refuse_cutting_off(of, group)
    assert "ec2 scale /inventories/demo.py 0" in refused.value.hint
