"""Objects of the manifests that were deleted or edited in the cluster, and pods that are not ready."""

from dataclasses import replace
from pathlib import Path

import pytest

from provision.desired.addons import Manifest
from provision.model.cluster import Files
from provision.model.observed import PodView
from provision.model.settings.network import Networks
from provision.plan.addons import judge_addons, lacking_problems
from tests.world import cluster, converged, healthy_api, plan_of

CALICO = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cni, namespace: kube-system}
spec: {revisionHistoryLimit: 1}
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: cni}}
  - {apiVersion: example.org/v1, kind: Pool, metadata: {name: cni, namespace: kube-system}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: kube-system}
spec: {ttlSecondsAfterFinished: 60}
"""
CUSTOM = cluster(
    networks=Networks(plugin="custom", manifests=(Path("/net/calico.yaml"),)),
    files=Files(manifests=(CALICO,)),
)


def named(thing):
    return f"{thing['kind']} {thing['metadata']['name']}"


def with_api(of, **values):
    seen = converged(of)[1]
    api = replace(healthy_api(of), **values)
    return {name: replace(view, api=api if view.api else None) for name, view in seen.items()}


def without(name, of=None):
    """What is seen when the object, `Service kube-dns`, was deleted."""
    of = of or converged()[0]
    return with_api(of, objects=tuple(o for o in healthy_api(of).objects if named(o) != name))


def with_change(name, change, of=None, **values):
    of = of or converged()[0]
    objects = tuple(change(o) if named(o) == name else o for o in healthy_api(of).objects)
    return with_api(of, objects=objects, **values)


def reasons(seen, of=None):
    plan = plan_of(of or converged()[0], seen)
    assert all(machine.empty for machine in plan.machines.values())
    return {change.name: change.reason for change in plan.apply}


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ("access", "ClusterRoleBinding clusterctl:kubelet-api"),
        ("network-policy-warning", "ValidatingAdmissionPolicy clusterctl-network-policy-is-not-enforced"),
        ("coredns", "ServiceAccount coredns"),
        ("coredns", "ClusterRole system:coredns"),
        ("coredns", "Deployment coredns"),
        ("coredns", "Service kube-dns"),
        ("metrics-server", "APIService v1beta1.metrics.k8s.io"),
        ("metrics-server", "PodDisruptionBudget metrics-server"),
        ("local-path", "StorageClass local-path"),
        ("local-path", "Namespace local-path-storage"),
    ],
)  # fmt: skip
def test_an_object_that_was_deleted_is_applied_again(manifest, name):
    seen = without(name)

    of = converged()[0]
    assert reasons(seen) == {manifest: f"{name} is missing"}
    assert lacking_problems(of, seen) == (
        f"m1: manifest {manifest}: {name} is missing: clusterctl up {of.inventory}",
    )


def test_an_object_that_was_edited_is_applied_again_and_its_fields_are_named():
    seen = with_change("ConfigMap coredns", lambda o: {**o, "data": {"Corefile": "."}})

    assert reasons(seen) == {"coredns": "ConfigMap coredns differs in data.Corefile"}


def test_a_deployment_scaled_to_nothing_is_applied_again():
    def scaled(o):
        return {**o, "spec": {**o["spec"], "replicas": 0}, "status": {}}

    assert reasons(with_change("Deployment coredns", scaled)) == {
        "coredns": "Deployment coredns differs in spec.replicas"
    }


def test_all_objects_that_are_missing_are_named_and_of_many_fields_the_first():
    def edited(o):
        return {**o, "spec": {"ports": [], "clusterIP": "10.96.0.11"}}

    seen = with_change("Service kube-dns", edited)
    objects = tuple(o for o in seen["m1"].api.objects if named(o) != "PodDisruptionBudget coredns")
    seen = {n: v and replace(v, api=v.api and replace(v.api, objects=objects)) for n, v in seen.items()}  # fmt: skip

    assert reasons(seen)["coredns"] == (
        "Service kube-dns differs in spec.selector, spec.clusterIP, spec.ports[53/UDP] and 2 more; "
        "PodDisruptionBudget coredns is missing"
    )


def test_an_object_that_is_being_deleted_counts_as_missing():
    def deleted(o):
        return {**o, "metadata": {**o["metadata"], "deletionTimestamp": "2026-12-01T00:00:00Z"}}

    assert reasons(with_change("Namespace local-path-storage", deleted)) == {
        "local-path": "Namespace local-path-storage is being deleted"
    }


def test_an_object_of_another_namespace_is_another_object():
    def elsewhere(o):
        return {**o, "metadata": {**o["metadata"], "namespace": "default"}}

    assert "is missing" in reasons(with_change("Service kube-dns", elsewhere))["coredns"]


def test_a_manifest_that_was_never_applied_or_has_changed_says_so():
    applied = {**healthy_api(converged()[0]).applied, "coredns": "0" * 64}
    del applied["local-path"]
    seen = with_api(converged()[0], applied=applied)

    assert reasons(seen) == {"coredns": "its content differs", "local-path": "new"}
    # A change of the inventory is no fault of the cluster.
    assert lacking_problems(converged()[0], seen) == ()


def test_without_an_apiserver_that_is_ready_the_manifests_are_applied_and_the_plan_says_why():
    down = replace(healthy_api(converged()[0]), ready=False)
    seen = {n: replace(v, api=down if v.api else None) for n, v in converged()[1].items()}

    found = {change.name: change.reason for change in plan_of(converged()[0], seen).apply}

    assert set(found) == set(healthy_api(converged()[0]).applied)
    assert set(found.values()) == {"no apiserver is ready to say whether it was applied"}
    assert judge_addons(converged()[0], seen) == []


def test_objects_that_were_not_read_are_not_missing_but_a_problem():
    of, _ = converged()
    seen = with_api(of, objects=None, unread="Unable to connect to the server: EOF")

    assert reasons(seen) == {}
    assert [str(f.cause) for f in judge_addons(of, seen)] == [
        "Unable to connect to the server: EOF"
    ]


def test_objects_that_another_file_on_the_machine_asked_for_are_not_judged():
    of, _ = converged()
    seen = without("Service kube-dns")
    path = "/etc/kubernetes/clusterctl/coredns.yaml"
    files = {**seen["m1"].files, path: replace(seen["m1"].files[path], sha256="0" * 64)}

    assert lacking_problems(of, seen | {"m1": replace(seen["m1"], files=files)}) == ()


# The operator's manifests


def test_the_operators_objects_are_applied_again_if_they_are_missing():
    def seen(*missing):
        given = tuple(o for o in healthy_api(CUSTOM).given if named(o) not in missing)
        return with_api(CUSTOM, given=given)

    assert reasons(seen(), CUSTOM) == {}
    assert reasons(seen("DaemonSet cni"), CUSTOM) == {"network-calico": "DaemonSet cni is missing"}
    assert reasons(seen("ConfigMap cni"), CUSTOM) == {"network-calico": "ConfigMap cni is missing"}
    assert reasons(seen("Pool cni"), CUSTOM) == {"network-calico": "Pool cni is missing"}
    # Kubernetes deletes this one when it has ended.
    assert reasons(seen("Job once"), CUSTOM) == {}


def test_the_fields_of_the_operators_objects_are_not_compared():
    def bare(o):
        namespace = o["metadata"].get("namespace", "default")
        if o["kind"] == "Pool":
            return {**o, "metadata": {"name": "cni"}}  # it belongs to no namespace
        metadata = {"name": o["metadata"]["name"], "namespace": namespace}
        return {"apiVersion": o["apiVersion"], "kind": o["kind"], "metadata": metadata}

    given = tuple(map(bare, healthy_api(CUSTOM).given))

    assert reasons(with_api(CUSTOM, given=given), CUSTOM) == {}


def test_an_operators_file_that_is_no_yaml_is_not_judged():
    of = cluster(
        networks=Networks(plugin="custom", manifests=(Path("/net/bad.yaml"),)),
        files=Files(manifests=("a: b: c",)),
    )
    applied = {"network-bad": Manifest("network-bad", b"a: b: c").sha256}
    api = replace(healthy_api(cluster()), given=())
    seen = with_api(converged()[0], applied={**api.applied, **applied}, given=())

    assert "network-bad" not in {change.name for change in plan_of(of, seen).apply}


# Pods


def with_status(*, waiting=(), off=(), **status):
    """What is seen when the Deployment coredns, which wants 2 pods, has this status."""

    def change(o):
        generation = status.pop("generation", 0)
        metadata = {**o["metadata"], "generation": generation}
        return {**o, "metadata": metadata, "status": {**o["status"], **status}}

    seen = with_change("Deployment coredns", change, waiting=waiting)
    return seen | {name: replace(seen[name], facts=None, api=None, error="off") for name in off}


def causes(seen):
    return {f.step: f.cause for f in judge_addons(converged()[0], seen)}


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ({"readyReplicas": 1}, "1 of 2 pods are ready"),
        # An old pod that is ready does not hide the new one that is not.
        ({"replicas": 3}, "its rollout has not ended; pods of the version before: 1"),
        ({"updatedReplicas": 1}, "1 of 2 pods have its last change; its rollout has not ended; pods of the version before: 1"),
        ({"generation": 3, "observedGeneration": 2}, "its last change has not begun to roll out"),
    ],
)  # fmt: skip
def test_an_addon_must_run_with_all_its_pods_and_its_last_change(status, cause):
    assert causes(with_status(**status)) == {"add-on kube-system/coredns": cause}


def test_the_reason_of_an_addons_pod_is_given():
    pods = (
        PodView(
            "kube-system", "coredns-1", {"k8s-app": "kube-dns", "x": "y"}, "ImagePullBackOff: no"
        ),
        PodView("kube-system", "other-1", {"k8s-app": "other"}, "CrashLoopBackOff: no"),
    )

    assert causes(with_status(readyReplicas=1, waiting=pods)) == {
        "add-on kube-system/coredns": "1 of 2 pods are ready; coredns-1: ImagePullBackOff: no"
    }


def test_a_machine_that_is_off_excuses_one_pod_but_not_the_last():
    assert causes(with_status(readyReplicas=1, off=["w1"])) == {}
    assert causes(with_status(readyReplicas=0, off=["w1"])) == {
        "add-on kube-system/coredns": "0 of 2 pods are ready"
    }
    assert causes(with_status(readyReplicas=0, off=["w1", "w2"])) != {}


@pytest.mark.parametrize("change", [{"unschedulable": True}, {"ready": False}])
def test_a_node_that_takes_no_pods_excuses_one_pod(change):
    seen = with_status(readyReplicas=1)
    for name, view in seen.items():
        if view.api:
            nodes = [replace(n, **change) if n.name == "w1" else n for n in view.api.nodes]
            seen[name] = replace(view, api=replace(view.api, nodes=tuple(nodes)))
    assert causes(seen) == {}


def test_an_addon_that_does_not_exist_is_named():
    assert causes(without("Deployment coredns")) == {
        "add-on kube-system/coredns": "it does not exist"
    }
