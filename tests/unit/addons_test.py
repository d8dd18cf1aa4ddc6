"""Manifests as text, and the shell programs that bring them to the cluster."""

import hashlib
import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from provision.apply import addons
from provision.artifacts import images
from provision.desired.addons import Manifest
from provision.model.cluster import Files, Taint
from provision.model.settings.components import Addons, ArtifactsSource
from provision.model.settings.network import Networks
from provision.plan.node_change import NodeChange
from tests.world import DEFAULT, all_manifests, cluster, master, worker

KUBECTL = "/usr/local/bin/kubectl"


def named(of=DEFAULT):
    return {m.name: m for m in all_manifests(of)}


def objects(manifest):
    return [d for d in yaml.safe_load_all(manifest.content) if d]


def images_in(value):
    if isinstance(value, dict):
        return {v for k, v in value.items() if k == "image" and isinstance(v, str)}.union(
            *(images_in(v) for v in value.values())
        )
    return set().union(*map(images_in, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("name", named())
def test_every_object_says_what_it_is(name):
    for thing in objects(named()[name]):
        assert thing["apiVersion"]
        assert thing["kind"]
        assert thing["metadata"]["name"]


def test_deployments_to_wait_for_are_in_their_manifest():
    for manifest in named().values():
        found = {
            f"{o['metadata']['namespace']}/{o['metadata']['name']}"
            for o in objects(manifest)
            if o["kind"] == "Deployment"
        }
        assert found == ({manifest.deployment} if manifest.deployment else set())


def test_images_are_those_that_the_registries_have():
    used = set().union(*(images_in(o) for m in named().values() for o in objects(m)))

    assert used
    assert used <= set(images.refs().values())


@pytest.mark.parametrize("source", ["official", "mirror"])
def test_upstreams_images_are_pinned_by_digest(source):
    of = cluster(artifacts=ArtifactsSource(source=source, mirror="https://mirror.example.org"))
    used = set().union(*(images_in(o) for m in named(of).values() for o in objects(m)))
    assert used <= set(images.refs(by_digest=True).values())
    assert sum("@sha256:" in image for image in used) == 2  # CoreDNS and metrics-server


def test_addons_that_are_switched_off_are_not_there():
    off = Addons(coredns=False, metrics_server=False, local_path=False)

    assert set(named(cluster(addons=off))) == {"access", "network-policy-warning"}


def test_a_custom_plug_in_is_applied_early_and_unchanged():
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: mine}\n"
    networks = Networks(plugin="custom", manifests=(Path("/net/cilium.yaml"),))
    found = named(cluster(networks=networks, files=Files(manifests=(text,))))

    assert found["network-cilium"].content == text.encode()
    assert found["network-cilium"].early
    assert "network-policy-warning" not in found


def deployments(of=DEFAULT):
    return {
        o["metadata"]["name"]: o["spec"]
        for manifest in named(of).values()
        for o in objects(manifest)
        if o["kind"] == "Deployment"
    }


def test_each_deployment_leaves_a_dead_node_after_30_seconds():
    found = deployments()

    assert len(found) == 3
    for name, spec in found.items():
        waits = {
            t["key"]: t["tolerationSeconds"]
            for t in spec["template"]["spec"]["tolerations"]
            if t.get("effect") == "NoExecute"
        }
        keys = {f"node.kubernetes.io/{key}" for key in ("not-ready", "unreachable")}
        assert waits == dict.fromkeys(keys, 30), name


@pytest.mark.parametrize("name", ["coredns", "metrics-server"])
@pytest.mark.parametrize(
    ("of", "replicas"),
    [
        (DEFAULT, 2),
        (cluster(master("m1")), 1),
        (cluster(master("m1"), worker("w1")), 2),
        (cluster(master("m1"), worker("w1", taints=(Taint(key="gpu"),))), 1),
        (
            cluster(
                master("m1"), worker("w1", taints=(Taint(key="a", effect="PreferNoSchedule"),))
            ),
            2,
        ),
    ],
)
def test_an_addon_has_two_copies_if_two_nodes_can_have_one_each(name, of, replicas):
    spec = deployments(of)[name]
    affinity = spec["template"]["spec"].get("affinity", {}).get("podAntiAffinity", {})
    apart = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [])

    assert spec["replicas"] == replicas
    assert [rule["labelSelector"] for rule in apart] == [spec["selector"]] * (replicas - 1)


def test_a_drain_leaves_one_copy_of_metrics_server():
    def budgets(of):
        found = objects(named(of)["metrics-server"])
        return [o["spec"]["maxUnavailable"] for o in found if o["kind"] == "PodDisruptionBudget"]

    assert budgets(DEFAULT) == [1]
    assert budgets(cluster(master("m1"))) == []


def test_an_update_of_metrics_server_needs_no_third_node():
    def unavailable(of):
        return deployments(of)["metrics-server"]["strategy"]["rollingUpdate"]["maxUnavailable"]

    assert unavailable(DEFAULT) == 1
    assert unavailable(cluster(master("m1"))) == 0


def test_the_dns_service_has_the_tenth_address():
    (service,) = (o for o in objects(named()["coredns"]) if o["kind"] == "Service")

    assert service["spec"]["clusterIP"] == "10.96.0.10"


# The programs


def run(program, directory, kubectl='echo "$@" >>calls; case "$*" in *"-f -"*) cat >>stdin;; esac'):
    """Run it with a kubectl that writes down what it is asked."""
    fake = directory / "kubectl"
    fake.write_text(f"#!/bin/sh\ncd {directory}\n{kubectl}\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", program.replace(KUBECTL, str(fake))],
        capture_output=True,
        text=True,
        check=False,
    )
    calls = directory / "calls"
    return done, calls.read_text().splitlines() if calls.exists() else []


def remembered(directory):
    return json.loads((directory / "stdin").read_text())


def test_manifests_are_applied_in_order_and_then_remembered(tmp_path):
    wanted = [Manifest("b", b"1"), Manifest("a", b"2")]

    done, calls = run(addons.apply_manifests(wanted, {"old": "x", "a": "y"}), tmp_path)

    assert done.returncode == 0, done.stderr
    assert [name for call in calls for name in re.findall(r"-f (\S+)", call)] == [
        "/etc/kubernetes/clusterctl/b.yaml",
        "/etc/kubernetes/clusterctl/a.yaml",
        "-",
    ]
    assert all("--server-side --force-conflicts" in call for call in calls)
    assert remembered(tmp_path)["data"] == {
        "old": "x",
        "a": hashlib.sha256(b"2").hexdigest(),
        "b": hashlib.sha256(b"1").hexdigest(),
    }


def test_nothing_is_remembered_when_applying_fails(tmp_path):
    done, calls = run(addons.apply_manifests([Manifest("a", b"")], {}), tmp_path, "exit 1")

    assert done.returncode != 0
    assert calls == []


def test_deleted_manifests_are_forgotten_even_if_their_file_is_gone(tmp_path):
    done, calls = run(addons.delete_manifests(["gone"], {"gone": "1", "kept": "2"}), tmp_path)

    assert done.returncode == 0, done.stderr
    assert not any("delete" in call for call in calls)
    assert remembered(tmp_path)["data"] == {"kept": "2"}


def test_manifests_for_nodes_are_applied_one_by_one_and_add_ons_in_one_call(tmp_path):
    wanted = [
        *(Manifest(name, b"", early=True) for name in ("crd", "uses-it")),
        *(Manifest(name, b"") for name in ("coredns", "metrics-server")),
    ]

    done, calls = run(addons.apply_manifests(wanted, {}), tmp_path)

    assert done.returncode == 0, done.stderr
    assert [re.findall(r"(\S+)\.yaml", call.replace("/", " ")) for call in calls] == [
        ["crd"],
        ["uses-it"],
        ["coredns", "metrics-server"],
        [],
    ]


def test_nodes_that_change_in_the_same_way_change_in_one_call(tmp_path):
    master = NodeChange({"role": "master"}, ("a:NoSchedule",), (), (("role",), ("a:NoSchedule",)))
    worker = NodeChange({"role": "worker"}, (), (), (("role",), ()))
    changes = {"m1": master, "w1": worker, "m2": master, "w2": worker}

    done, calls = run(addons.mark_nodes(changes), tmp_path)

    assert done.returncode == 0, done.stderr
    assert [call.split("admin.conf ")[1].split(" --")[0] for call in calls] == [
        "get node/m1 node/m2 -o name",
        "patch node m1 m2",
        "taint",
        "get node/w1 node/w2 -o name",
        "patch node w1 w2",
    ]
    assert calls[2].endswith("taint --overwrite node m1 m2 a:NoSchedule")


def test_labels_are_set_once_the_node_is_there(tmp_path):
    change = NodeChange({"owner": "it's me", "gone": None}, (), (), (("owner",), ()))

    done, calls = run(addons.mark_nodes({"w1": change}), tmp_path)

    assert done.returncode == 0, done.stderr
    before, _, patch = calls[-1].partition("--patch=")
    assert "patch node w1 --type=merge" in before
    assert json.loads(patch) == {
        "metadata": {
            "labels": {"owner": "it's me", "gone": None},
            "annotations": {"clusterctl/labels": "owner", "clusterctl/taints": ""},
        }
    }


def test_nodes_are_marked_once_all_of_them_are_there(tmp_path):
    change = NodeChange({"a": "b"}, (), (), (("a",), ()))
    third = (
        'echo "$@" >>calls; case "$*" in *patch*) ;; *) [ "$(grep -c get calls)" -ge 3 ] ;; esac'
    )

    done, calls = run(addons.mark_nodes({"m1": change, "m2": change}), tmp_path, third)

    assert done.returncode == 0, done.stderr
    assert len([call for call in calls if " get " in call]) == 3
    assert " patch node m1 m2 " in calls[-1]


def test_a_taint_is_recorded_as_managed_before_it_is_set_and_until_it_is_deleted(tmp_path):
    change = NodeChange({}, ("new=1:NoSchedule",), ("old:NoExecute",), ((), ("new:NoSchedule",)))

    done, calls = run(addons.mark_nodes({"w1": change}), tmp_path)

    assert done.returncode == 0, done.stderr
    patched, tainted, annotated = calls[-3:]
    assert '"clusterctl/taints": "new:NoSchedule,old:NoExecute"' in patched
    assert tainted.endswith("taint --overwrite node w1 new=1:NoSchedule old:NoExecute-")
    assert annotated.endswith("annotate --overwrite node w1 clusterctl/taints=new:NoSchedule")


def test_each_deployment_is_waited_for(tmp_path):
    program = addons.wait_for_deployments(["kube-system/coredns", "other/thing"], 90)

    _, calls = run(program, tmp_path)

    assert [call.split("admin.conf ")[1] for call in calls] == [
        "-n kube-system rollout status deployment/coredns --timeout=90s",
        "-n other rollout status deployment/thing --timeout=90s",
    ]


def test_nodes_that_do_not_get_ready_fail_with_their_conditions(tmp_path):
    kubectl = 'case "$*" in *wait*) exit 7;; *) echo "w1: container runtime is down";; esac'

    done, _ = run(addons.wait_for_nodes(["w1"], 5), tmp_path, kubectl)

    assert done.returncode == 7
    assert "w1: container runtime is down" in done.stderr


def test_a_bootstrap_token_is_a_secret_that_expires(tmp_path):
    expires = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)

    secret = json.loads(addons.bootstrap_token("abcdef", "0123456789abcdef", expires))

    assert secret["type"] == "bootstrap.kubernetes.io/token"
    assert secret["metadata"] == {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}
    assert secret["stringData"]["expiration"] == "2026-01-01T12:30:00Z"
    groups = secret["stringData"]["auth-extra-groups"]
    bound = yaml.safe_load_all(named()["access"].content)
    assert groups in {s["name"] for o in bound if o for s in o.get("subjects", ())}
    _, calls = run(addons.forget_token("abcdef"), tmp_path)
    assert "delete secret bootstrap-token-abcdef" in calls[0]
