"""Services of type LoadBalancer on EC2: the cloud controller makes and removes load balancers."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.conftest import until
from tests.e2e.ec2_lab import Ec2Lab

SERVICE = """
apiVersion: v1
kind: Service
metadata:
  name: {name}
  annotations: {{service.beta.kubernetes.io/aws-load-balancer-type: nlb}}
spec:
  type: LoadBalancer
  selector: {{app: nothing}}
  ports: [{{port: {port}, targetPort: 8080}}]
---
"""
PORTS = {"first": 8001, "second": 8002}


def nodes_say_which_instance_they_are(lab: Ec2Lab) -> None:
    of = {i["PrivateIpAddress"]: i for i in _instances(lab)}

    def said() -> dict[str, Any]:
        return {n["metadata"]["name"]: n for n in _get(lab, "nodes")["items"]}

    until("all Nodes say it", lambda: all("providerID" in n["spec"] for n in said().values()))
    for node in said().values():
        instance = of[node["status"]["addresses"][0]["address"]]
        zone = instance["Placement"]["AvailabilityZone"]
        assert node["spec"]["providerID"] == f"aws:///{zone}/{instance['InstanceId']}"
        labels = node["metadata"]["labels"]
        assert labels["topology.kubernetes.io/zone"] == zone
        assert labels["topology.kubernetes.io/region"] == zone[:-1]
        assert labels["node.kubernetes.io/instance-type"] == instance["InstanceType"]


def services_get_load_balancers(lab: Ec2Lab, workers: set[str]) -> None:
    """Two Services get load balancers. The first is removed when its Service is deleted.

    Args:
        workers: IDs of the instances that must be the targets.
    """
    text = "".join(SERVICE.format(name=name, port=port) for name, port in PORTS.items())
    _kubectl(lab, "apply -f -", text)
    names = {name: until(f"{name} has a name", lambda n=name: _host(lab, n)) for name in PORTS}

    elbv2 = lab.moto.client("elbv2")
    network = {b["DNSName"]: b for b in elbv2.describe_load_balancers()["LoadBalancers"]}
    assert set(names.values()) <= network.keys()
    arn = network[names["first"]]["LoadBalancerArn"]
    assert network[names["first"]]["Type"] == "network"
    (listener,) = elbv2.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    assert (listener["Port"], listener["Protocol"]) == (PORTS["first"], "TCP")
    group = listener["DefaultActions"][0]["TargetGroupArn"]
    assert _targets(lab, group) == {(id_, _node_port(lab, "first")) for id_ in workers}
    # The port is open to clients on the workers, and only there.
    port = _node_port(lab, "first")
    assert (port in _open(lab, "workers"), port in _open(lab, "masters")) == (True, False)

    _kubectl(lab, "delete service first")  # returns when the controller has removed its finalizer
    left = {b["DNSName"] for b in elbv2.describe_load_balancers()["LoadBalancers"]}
    assert names["first"] not in left
    assert names["second"] in left
    groups = {g["TargetGroupArn"] for g in elbv2.describe_target_groups()["TargetGroups"]}
    assert group not in groups
    assert port not in _open(lab, "workers")


def targets_are(lab: Ec2Lab, service: str, workers: set[str]) -> None:
    elbv2, host, port = lab.moto.client("elbv2"), _host(lab, service), _node_port(lab, service)
    balancers = elbv2.describe_load_balancers()["LoadBalancers"]
    (arn,) = (b["LoadBalancerArn"] for b in balancers if b["DNSName"] == host)
    (group,) = elbv2.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"]
    wanted = {(id_, port) for id_ in workers}
    until("targets are these", lambda: _targets(lab, group["TargetGroupArn"]) == wanted, 180)


def nothing_of_them_is_left(lab: Ec2Lab) -> None:
    elbv2 = lab.moto.client("elbv2")
    assert elbv2.describe_load_balancers()["LoadBalancers"] == []
    assert elbv2.describe_target_groups()["TargetGroups"] == []


def _instances(lab: Ec2Lab) -> list[dict[str, Any]]:
    found = lab.moto.client("ec2").describe_instances()["Reservations"]
    return [i for reservation in found for i in reservation["Instances"]]


def _kubectl(lab: Ec2Lab, words: str, stdin: str = "") -> str:
    command = f"kubectl --kubeconfig=/etc/kubernetes/admin.conf {words}"
    return lab.engine.run(
        "exec", "--interactive", f"{lab.name}-m1", "sh", "-c", command, stdin=stdin.encode()
    )


def _get(lab: Ec2Lab, what: str) -> dict[str, Any]:
    return json.loads(_kubectl(lab, f"get {what} -o json"))


def _host(lab: Ec2Lab, service: str) -> str:
    given = _get(lab, f"service {service}")["status"]["loadBalancer"].get("ingress", [])
    return given[0]["hostname"] if given else ""


def _node_port(lab: Ec2Lab, service: str) -> int:
    return _get(lab, f"service {service}")["spec"]["ports"][0]["nodePort"]


def _targets(lab: Ec2Lab, group: str) -> set[tuple[str, int]]:
    health = lab.moto.client("elbv2").describe_target_health(TargetGroupArn=group)
    told = (described["Target"] for described in health["TargetHealthDescriptions"])
    return {(target["Id"], target["Port"]) for target in told}


def _open(lab: Ec2Lab, side: str) -> set[int]:
    """Ports that every address may reach."""
    named = [{"Name": "group-name", "Values": [f"clusterctl-test-ec2-{side}"]}]
    (group,) = lab.moto.client("ec2").describe_security_groups(Filters=named)["SecurityGroups"]
    return {
        permission["FromPort"]
        for permission in group["IpPermissions"]
        if any(r["CidrIp"] == "0.0.0.0/0" for r in permission["IpRanges"])
        if "FromPort" in permission
    }
