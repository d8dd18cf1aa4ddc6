"""What changes of a Node: only labels and taints that clusterctl manages."""

from dataclasses import replace

from provision.model.cluster import Taint
from provision.plan.node_change import node_change
from tests.world import cluster, master, node_view, worker

GPU = Taint(key="gpu", value="yes")
ROLE = "node-role.kubernetes.io/worker"


def of(**values):
    return cluster(master("m1"), worker("w1", **values))


BEFORE = of(labels={"zone": "a", "disk": "nvme"}, taints=(GPU,))


def change(now, there):
    return node_change(now, now.machine("w1"), there)


def there(**values):
    return replace(node_view(BEFORE, BEFORE.machine("w1")), **values)


def test_a_node_as_it_should_be_does_not_change():
    assert change(BEFORE, there()) is None


def test_a_new_node_gets_its_labels_and_its_kubelet_brings_the_taints():
    found = change(BEFORE, None)

    assert found.labels == {"zone": "a", "disk": "nvme", ROLE: ""}
    assert (found.taints, found.untaint) == ((), ())
    assert found.ours == (("disk", ROLE, "zone"), ("gpu:NoSchedule",))


def test_removed_labels_are_deleted_and_changed_ones_are_set():
    found = change(of(labels={"zone": "b"}, taints=(Taint(key="gpu", value="no"),)), there())

    assert found.labels == {"zone": "b", "disk": None}
    assert found.taints == ("gpu=no:NoSchedule",)
    assert found.untaint == ()


def test_a_taint_removed_from_the_inventory_is_deleted():
    found = change(of(labels={"zone": "a", "disk": "nvme"}), there())

    assert (found.labels, found.taints, found.untaint) == ({}, (), ("gpu:NoSchedule",))
    assert found.ours[1] == ()


def test_a_taint_with_another_effect_takes_the_place_of_the_old_one():
    moved = Taint(key="gpu", value="yes", effect="NoExecute")
    found = change(of(labels={"zone": "a", "disk": "nvme"}, taints=(moved,)), there())

    assert (found.taints, found.untaint) == (("gpu=yes:NoExecute",), ("gpu:NoSchedule",))


def test_labels_and_taints_of_others_stay():
    view = there()
    view = replace(
        view,
        labels={**view.labels, "theirs": "1"},
        taints=(*view.taints, "node.kubernetes.io/unschedulable:NoSchedule"),
    )

    assert change(BEFORE, view) is None
    assert "theirs" not in change(of(), view).labels
    assert change(of(), view).untaint == ("gpu:NoSchedule",)


def test_a_node_without_the_record_of_managed_labels_gets_one():
    found = change(BEFORE, there(annotations={}))

    assert (found.labels, found.taints, found.untaint) == ({}, (), ())
    assert found.ours[0] == ("disk", ROLE, "zone")


def test_labels_and_taints_that_are_gone_already_are_only_removed_from_the_record():
    view = there()
    labels = {k: v for k, v in view.labels.items() if k != "disk"}
    found = change(of(labels={"zone": "a"}), replace(view, labels=labels, taints=()))

    assert (found.labels, found.taints, found.untaint) == ({}, (), ())
    assert "disk" not in found.ours[0]
