"""A cluster on EC2 from nothing to nothing, through the command line, over real SSH."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from provision import inventory
from provision.artifacts import images
from provision.desired.components.control_plane import KUBECTL
from provision.local import seal
from tests.aws import REGION
from tests.e2e.conftest import CLUSTERCTL, ready, until
from tests.e2e.ec2_lab import INVENTORY, NAME, Ec2Lab, ec2_lab
from tests.e2e.ec2_load_balancers import (
    nodes_say_which_instance_they_are,
    nothing_of_them_is_left,
    services_get_load_balancers,
    targets_are,
)
from tests.e2e.sample import long

pytestmark = [pytest.mark.e2e, long(270)]

WORKER = "node-role.kubernetes.io/worker"
TOKENS = "bootstrap.kubernetes.io/token"
AS_JOINING = (
    f"{KUBECTL} --as=system:bootstrap:abcdef --as-group=system:authenticated "
    "--as-group=system:bootstrappers --as-group=system:bootstrappers:clusterctl-group"
)
PROBE = """
apiVersion: v1
kind: Pod
metadata: {{name: probe, namespace: default}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: probe, image: "{image}", args: [netexec]}}]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Ec2Lab]:
    with ec2_lab(tmp_path, inventory.read(INVENTORY).ec2.network, NAME) as lab:
        place = {"LocationConstraint": REGION}
        lab.moto.client("s3").create_bucket(Bucket="shared", CreateBucketConfiguration=place)
        identity = tmp_path / "identity"
        identity.write_text(f"{pyrage.x25519.Identity.generate()}\n")
        identity.chmod(0o600)
        yield lab


def clusterctl(lab: Ec2Lab, *words: str) -> subprocess.CompletedProcess[str]:
    command, *rest = words
    group = [rest.pop(0)] if command in {"ec2", "etcd", "node"} else []
    return subprocess.run(
        [CLUSTERCTL, command, *group, INVENTORY, *rest],
        env={
            **os.environ,
            **lab.operator,
            "TEST_EC2_ENDPOINT": lab.endpoint,
            "XDG_STATE_HOME": str(lab.folder / "state"),
            seal.AGE_IDENTITY: str(lab.folder / "identity"),
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_up_creates_a_cluster_on_ec2_and_down_deletes_everything(lab: Ec2Lab) -> None:
    planned = clusterctl(lab, "plan", "-o", "json")
    assert planned.returncode == 2, planned.stderr
    assert json.loads(planned.stdout)["machines_to_make"] == ["m1", "w1"]
    assert lab.started == {}

    done = clusterctl(lab, "up", "--yes")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}\n{lab.errors}"

    # `verify` has reached a pod of each node from each other node. The packets use the VPC's route
    # table, because no node has its own route.
    ec2 = lab.moto.client("ec2")
    (worker,) = (id_ for id_, name in lab.started.items() if name.endswith(id_))
    joined = {"m1": "True", "w1": "True", worker: "True"}
    until("the group's worker has joined", lambda: ready(nodes_of(lab)) == joined, 180)
    nodes = nodes_of(lab)
    machines = {
        i["PrivateIpAddress"]: i["InstanceId"]
        for reservation in ec2.describe_instances()["Reservations"]
        for i in reservation["Instances"]
    }
    wanted = {
        node["spec"]["podCIDR"]: machines[node["status"]["addresses"][0]["address"]]
        for node in nodes
    }
    until("its pods have a route", lambda: routes(lab) == wanted)
    the_groups_worker_does_what_any_other_does(lab, worker)
    nobody_else_gets_in(lab)
    here = lab.engine.run("exec", f"{lab.name}-w1", "ip", "route")
    assert not any(cidr in here for cidr in set(wanted) - {own(nodes, "w1")})
    # The load balancer checks the master's health at this address.
    for master in ("m1",):
        address = next(n for n in nodes if n["metadata"]["name"] == master)["status"]["addresses"]
        url = f"http://{address[0]['address']}:7480/readyz"
        asked = subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=False)
        assert asked.returncode == 0
    # No private host key stays on this computer.
    assert list(lab.folder.glob("state/clusterctl/ec2/*/*.host_key")) == []
    # The shared bucket holds the cluster's keys and no lock. This computer holds no keys.
    assert shared(lab) == ["clusters/test-ec2/pki.age"]
    assert list(lab.folder.glob("state/clusterctl/clusters/**/*.key")) == []

    a_snapshot_goes_into_the_bucket(lab)
    nodes_say_which_instance_they_are(lab)
    services_get_load_balancers(lab, {instance(lab, "w1"), worker})

    again = clusterctl(lab, "up", "--yes", "-o", "json")
    assert json.loads(again.stdout)["changed"] == {}, again.stdout
    assert clusterctl(lab, "plan").returncode == 0
    status = json.loads(clusterctl(lab, "status", "-o", "json").stdout)
    assert (status["healthy"], status["problems"]) == (True, [])
    what_the_group_terminates_leaves_the_cluster(lab, worker)
    a_machine_that_is_dead_is_made_anew(lab)
    targets_are(lab, "second", {instance(lab, "w1")})

    down = clusterctl(lab, "down", "--yes")
    assert down.returncode == 0, down.stderr
    until("its machines are gone", lambda: not lab.started)
    alive = [
        i["InstanceId"]
        for reservation in ec2.describe_instances()["Reservations"]
        for i in reservation["Instances"]
        if i["State"]["Name"] != "terminated"
    ]
    assert alive == []
    assert [v for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]] == []
    assert ec2.describe_volumes()["Volumes"] == []
    nothing_of_them_is_left(lab)
    roles = sorted(r["RoleName"] for r in lab.moto.client("iam").list_roles()["Roles"])
    assert roles == ["twin-masters", "twin-workers"]  # made by the test itself
    assert buckets(lab) == ["shared"]
    assert shared(lab) == []
    assert lab.errors == []


def a_snapshot_goes_into_the_bucket(lab: Ec2Lab) -> None:
    """The master writes it with the rights of its role, the operator reads it with their own."""
    master(lab, "clusterctl-backup")
    (bucket,) = (b for b in buckets(lab) if b != "shared")
    there = lab.moto.client("s3").list_objects_v2(Bucket=bucket, Prefix="backups/")["Contents"]
    (name,) = (thing["Key"].removeprefix("backups/") for thing in there)
    master(lab, "rm /var/lib/clusterctl/backups/*")
    listed = json.loads(clusterctl(lab, "etcd", "list", "-o", "json").stdout)
    assert [copy["name"] for copy in listed["snapshots"]] == [name]
    verified = clusterctl(lab, "etcd", "verify", "--from", name)
    assert verified.returncode == 0, verified.stderr
    assert f"s3://{bucket}" in verified.stdout


def the_groups_worker_does_what_any_other_does(lab: Ec2Lab, name: str) -> None:
    (node,) = (n for n in nodes_of(lab) if n["metadata"]["name"] == name)
    address = node["status"]["addresses"][0]["address"]
    until("it is marked", lambda: WORKER in labels(lab, name))
    ca = master(lab, "cat /etc/kubernetes/pki/ca.crt")
    (lab.folder / "ca.crt").write_text(ca)
    ask = ["curl", "-s", "--cacert", lab.folder / "ca.crt", f"https://{address}:10250/healthz"]
    until(
        "its kubelet serves with a certificate of the cluster",
        lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0,
    )
    # The masters accept the checks of the worker's HAProxy, and serve the pod's image.
    master(lab, f"{KUBECTL} apply -f -", PROBE.format(node=name, image=images.refs()["agnhost"]))
    get = f"{KUBECTL} get --raw /api/v1/namespaces/default/pods/probe:8080/proxy/hostname"
    until("a pod runs there, and is reached", lambda: master(lab, f"{get} || true") == "probe", 120)
    master(lab, f"{KUBECTL} delete pod probe --wait=false")
    here = lab.engine.run("exec", lab.started[name], "sh", "-c", "ls /etc/kubernetes/pki; ip route")
    assert "ca.key" not in here
    (instance,) = instances(lab, name)
    assert instance["SourceDestCheck"] is False


def nobody_else_gets_in(lab: Ec2Lab) -> None:
    """The token of joining workers allows requests, but no certificate of another machine."""
    for number, name in enumerate(("m1", "i-00000000000000000")):
        master(lab, f"{AS_JOINING} create -f -", request_for(f"asked-{number}", name))
    get = f"{KUBECTL} get csr asked-0 asked-1 -o jsonpath='{{.items[*].status.conditions[*].type}}'"
    until("a master's name is denied", lambda: "Denied" in master(lab, get))
    # The controller looks at both requests in the same turn. EC2 may not know a new instance yet,
    # so the request for an unknown instance waits.
    assert master(lab, get) == "Denied"
    tokens = f"{KUBECTL} -n kube-system get secrets --field-selector=type={TOKENS} -o name"
    until("the token is forgotten", lambda: master(lab, tokens) == "")
    (bucket,) = (b for b in buckets(lab) if b != "shared")
    joining = lab.moto.client("s3").list_objects_v2(Bucket=bucket, Prefix="join/")["Contents"]
    assert "join/token" not in {thing["Key"] for thing in joining}


def what_the_group_terminates_leaves_the_cluster(lab: Ec2Lab, name: str) -> None:
    refused = clusterctl(lab, "ec2", "scale", "1001", "--yes")
    assert "0 to 1000 workers, not 1001" in refused.stderr
    scaled = clusterctl(lab, "ec2", "scale", "0", "--yes")
    assert scaled.returncode == 0, scaled.stderr
    assert '"group": 1' in scaled.stderr
    until(
        "its Node is gone", lambda: {n["metadata"]["name"] for n in nodes_of(lab)} == {"m1", "w1"}
    )
    until("its route is gone", lambda: len(routes(lab)) == 2)
    assert name not in lab.started
    planned = json.loads(clusterctl(lab, "plan", "-o", "json").stdout)
    assert [(t["what"], t["detail"]) for t in planned["to_make"]] == [
        ("size of group", "0 -> 1 workers, as in the inventory")
    ]


def a_machine_that_is_dead_is_made_anew(lab: Ec2Lab) -> None:
    """It has the zone and address of the old machine. The group keeps the size that `scale` set."""
    (old,) = (id_ for id_, name in lab.started.items() if name == f"{lab.name}-w1")
    (was,) = instances(lab, old)
    lab.moto.client("ec2").terminate_instances(InstanceIds=[old])
    until("it is dead", lambda: old not in lab.started)
    done = clusterctl(lab, "node", "replace", "w1", "--yes")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}\n{lab.errors}"
    (new,) = (id_ for id_, name in lab.started.items() if name == f"{lab.name}-w1")
    (now,) = instances(lab, new)
    assert new != old
    assert now["PrivateIpAddress"] == was["PrivateIpAddress"]
    assert now["Placement"]["AvailabilityZone"] == was["Placement"]["AvailabilityZone"]
    assert ready(nodes_of(lab)) == {"m1": "True", "w1": "True"}


def nodes_of(lab: Ec2Lab) -> list[dict[str, Any]]:
    listed = clusterctl(lab, "kubectl", "--", "get", "nodes", "-o", "json")
    return json.loads(listed.stdout)["items"] if listed.returncode == 0 else []


def labels(lab: Ec2Lab, name: str) -> dict[str, str]:
    (node,) = (n for n in nodes_of(lab) if n["metadata"]["name"] == name)
    return node["metadata"]["labels"]


def master(lab: Ec2Lab, command: str, stdin: str = "") -> str:
    told = lab.engine.run(
        "exec", "--interactive", f"{lab.name}-m1", "sh", "-c", command, stdin=stdin.encode()
    )
    return told.strip()


def routes(lab: Ec2Lab) -> dict[str, str]:
    return {
        route["DestinationCidrBlock"]: route["InstanceId"]
        for table in lab.moto.client("ec2").describe_route_tables()["RouteTables"]
        for route in table["Routes"]
        if "InstanceId" in route
    }


def instances(lab: Ec2Lab, *ids: str) -> list[dict[str, Any]]:
    found = lab.moto.client("ec2").describe_instances(InstanceIds=list(ids))["Reservations"]
    return [i for reservation in found for i in reservation["Instances"]]


def instance(lab: Ec2Lab, machine: str) -> str:
    (id_,) = (id_ for id_, name in lab.started.items() if name == f"{lab.name}-{machine}")
    return id_


def buckets(lab: Ec2Lab) -> list[str]:
    return [b["Name"] for b in lab.moto.client("s3").list_buckets()["Buckets"]]


def request_for(name: str, node: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return json.dumps(
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                "request": base64.b64encode(csr.public_bytes(Encoding.PEM)).decode(),
                "usages": ["digital signature", "client auth"],
            },
        }
    )


def shared(lab: Ec2Lab) -> list[str]:
    listed = lab.moto.client("s3").list_objects_v2(Bucket="shared")
    return [thing["Key"] for thing in listed.get("Contents", ())]


def own(nodes: list, name: str) -> str:
    return next(n["spec"]["podCIDR"] for n in nodes if n["metadata"]["name"] == name)
