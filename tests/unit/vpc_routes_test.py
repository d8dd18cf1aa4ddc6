"""The program that keeps the pods' routes, as far as it can be run without EC2: what it reads."""

import subprocess

import pytest

from provision.desired.components.vpc_routes import SCRIPT, VPC_ROUTES
from tests.world import LAB, cluster, master, trust

INSTANCE = """
      <item>
        {before}
        <instanceId>{id}</instanceId>
        <imageId/>
        <privateIpAddress>{address}</privateIpAddress>
        <placement><availabilityZone>eu-central-1a</availabilityZone></placement>
        {after}
      </item>"""
INTERFACES = """<networkInterfaceSet><item>
          <networkInterfaceId>eni-1</networkInterfaceId>
          <privateIpAddress>{address}</privateIpAddress>
          <attachment><instanceId>i-other</instanceId></attachment>
          <privateIpAddressesSet><item><privateIpAddress>10.0.0.99</privateIpAddress></item></privateIpAddressesSet>
        </item></networkInterfaceSet>"""
ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>r</requestId>
  <reservationSet>{reservations}
  </reservationSet>
</DescribeInstancesResponse>
"""
RESERVATION = """
    <item><reservationId>r-1</reservationId>
    <groupSet><item><groupId>sg-1</groupId></item></groupSet>
    <instancesSet>{instances}
    </instancesSet></item>"""


def script():
    state = VPC_ROUTES.state(cluster(), master("m1"), trust(), LAB)
    (file,) = (file for file in state.files if file.path == SCRIPT)
    return file.content.decode()


def run(folder, awk, program, **answers):
    """Run the script's functions; the calls that change something are in `calls`, in order."""
    if subprocess.run(
        ["sh", "-c", f"command -v {awk}"], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"no {awk} here")
    (folder / "bin").mkdir()
    (folder / "work").mkdir()
    cases = ""
    for action, answer in answers.items():
        (folder / action).write_text(answer)
        cases += f"*Action={action}\\ *) cp {folder}/{action} {folder}/work/answer ;;\n"
    fake = folder / "bin" / "curl"
    fake.write_text(f"""#!/bin/sh
case "$*" in
{cases}*) echo "$*" >> {folder}/calls; : > {folder}/work/answer ;;
esac
""")
    fake.chmod(0o755)
    functions, _, _ = script().partition('\ndone_for=""')
    return subprocess.run(
        ["sh", "-c", f'awk() {{ command {awk} "$@"; }}\n{functions}\n{program}\n'],
        env={"PATH": f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "RUNTIME_DIRECTORY": f"{folder}/work"},
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip


@pytest.mark.parametrize("awk", ["mawk", "gawk", "busybox awk"])
@pytest.mark.parametrize("interfaces_first", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_every_instance_has_its_own_address_in_any_order_of_the_answer(
    tmp_path, awk, interfaces_first, together
):
    wanted = {"10.0.0.5": "i-zzz", "10.0.0.6": "i-aaa", "10.0.0.7": "i-mmm"}
    items = []
    for address, id_ in wanted.items():
        more = INTERFACES.format(address=address)
        before, after = (more, "") if interfaces_first else ("", more)
        items.append(INSTANCE.format(id=id_, address=address, before=before, after=after))
    groups = ["".join(items)] if together else items
    reservations = "".join(RESERVATION.format(instances=group) for group in groups)

    done = run(
        tmp_path, awk, "instances", DescribeInstances=ANSWER.format(reservations=reservations)
    )

    assert dict(line.split() for line in done.stdout.splitlines()) == wanted


TABLE = """<?xml version="1.0" encoding="UTF-8"?>
<DescribeRouteTablesResponse><routeTableSet><item><routeTableId>rtb-1</routeTableId><routeSet>
  <item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId>
    <state>active</state></item>
  <item><destinationCidrBlock>192.168.7.0/24</destinationCidrBlock><instanceId>i-vpn</instanceId>
    <networkInterfaceId>eni-1</networkInterfaceId><state>active</state></item>
  <item><destinationIpv6CidrBlock>::/0</destinationIpv6CidrBlock><instanceId>i-nat</instanceId>
    <networkInterfaceId>eni-2</networkInterfaceId><state>active</state></item>
  <item><destinationCidrBlock>10.0.0.0/8</destinationCidrBlock><instanceId>i-vpn</instanceId>
    <networkInterfaceId>eni-1</networkInterfaceId><state>active</state></item>
  <item><destinationCidrBlock>192.168.8.0/24</destinationCidrBlock>
    <networkInterfaceId>eni-3</networkInterfaceId><state>blackhole</state></item>
  <item><destinationCidrBlock>10.244.1.0/24</destinationCidrBlock>
    <networkInterfaceId>eni-4</networkInterfaceId><state>blackhole</state></item>
  <item><destinationCidrBlock>10.244.9.0/24</destinationCidrBlock>
    <networkInterfaceId>eni-5</networkInterfaceId><state>blackhole</state></item>
  <item><destinationCidrBlock>10.244.8.0/24</destinationCidrBlock><instanceId>i-old</instanceId>
    <networkInterfaceId>eni-6</networkInterfaceId><state>active</state></item>
</routeSet></item></routeTableSet></DescribeRouteTablesResponse>
"""


@pytest.mark.parametrize("awk", ["mawk", "gawk", "busybox awk"])
def test_routes_of_the_pod_network_are_kept_as_the_nodes_are_and_no_others(tmp_path, awk):
    instance = INSTANCE.format(id="i-new", address="10.0.0.6", before="", after="")
    there = ANSWER.format(reservations=RESERVATION.format(instances=instance))

    done = run(
        tmp_path, awk, 'credentials() { :; }\nsettle "10.244.1.0/24 10.0.0.6"',
        DescribeInstances=there, DescribeRouteTables=TABLE,
    )  # fmt: skip

    assert done.stdout.splitlines() == [
        "ReplaceRoute 10.244.1.0/24 i-new",
        "DeleteRoute 10.244.8.0/24 i-old",
        "DeleteRoute 10.244.9.0/24 gone",
    ]
    assert len((tmp_path / "calls").read_text().splitlines()) == 3
