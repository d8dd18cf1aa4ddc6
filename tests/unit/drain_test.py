"""Who is in the way of a drain, from the API's objects."""

import pytest

from provision.apply.drain import judge


def pod(name, *, owner="ReplicaSet", labels=None, namespace="default", phase="Running"):
    owners = [{"kind": owner}] if owner else []
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"metadata": {**metadata, "ownerReferences": owners}, "status": {"phase": phase}}


def budget(selector, allowed=0, namespace="default"):
    return {
        "metadata": {"name": "budget", "namespace": namespace},
        "spec": {"selector": selector},
        "status": {"disruptionsAllowed": allowed},
    }


def test_pods_of_daemon_sets_and_those_that_ended_stay_out_of_it():
    pods = [pod("a"), pod("b", owner="DaemonSet"), pod("c", phase="Succeeded")]
    assert judge("w1", pods, [], []).pods == ("default/a",)


def test_a_pod_without_an_owner_would_be_lost():
    assert judge("w1", [pod("a"), pod("b", owner="")], [], []).orphans == ("default/b",)


@pytest.mark.parametrize(
    ("selector", "blocked"),
    [
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "other"}}, False),
        ({}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_budget_blocks_what_it_selects(selector, blocked):
    there = judge("w1", [pod("a", labels={"app": "web"})], [budget(selector)], [])
    assert dict(there.blocked) == ({"default/a": "default/budget"} if blocked else {})


def test_a_budget_blocks_nothing_in_other_namespaces_or_while_it_allows_one():
    pods = [pod("a", labels={"app": "web"})]
    assert not judge("w1", pods, [budget({}, namespace="other")], []).blocked
    assert not judge("w1", pods, [budget({}, allowed=1)], []).blocked


def test_volumes_that_are_on_this_machine_only_are_named():
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["w1"]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    claim = {"namespace": "default", "name": "data"}
    local = {"metadata": {"name": "pvc-1"}, "spec": {"nodeAffinity": affinity, "claimRef": claim}}
    remote = {"metadata": {"name": "pvc-2"}, "spec": {"claimRef": claim}}
    assert [v.claim for v in judge("w1", [], [], [local, remote]).volumes] == ["default/data"]
    assert judge("w2", [], [], [local, remote]).volumes == ()
