"""What is wrong with a cluster by what its machines say."""

from dataclasses import replace

import pytest

from provision.apply.verify import judge
from provision.model.observed import ApiView, EtcdMember, EtcdView, PodNetwork, api_view
from provision.observe.parse import unreachable
from tests.world import DEFAULT, converged, healthy_api, healthy_etcd


def healthy():
    _, seen = converged()
    return {
        name: replace(o, etcd=healthy_etcd(DEFAULT) if DEFAULT.machine(name).has_etcd else None)
        for name, o in seen.items()
    }


def failures(**changed):
    seen = healthy()
    return judge(DEFAULT, seen | {name: replace(seen[name], **v) for name, v in changed.items()})


def only(found):
    (failure,) = found
    return failure.machine, failure.step, failure.cause


def test_a_healthy_cluster_has_no_failures():
    assert judge(DEFAULT, healthy()) == []


def test_a_machine_that_does_not_answer_is_named_once():
    seen = healthy() | {"m2": unreachable("m2", "no route to host")}

    assert only(judge(DEFAULT, seen)) == ("m2", "reach the machine", "no route to host")


@pytest.mark.parametrize(
    ("api", "cause"),
    [
        (None, "is not running"),
        (ApiView(ready=False), "is not ready"),
        (ApiView(ready=False, error="[-]etcd failed"), "[-]etcd failed"),
    ],
)
def test_an_apiserver_that_is_not_ready(api, cause):
    assert only(failures(m1={"api": api})) == ("m1", "kube-apiserver", cause)


@pytest.mark.parametrize(
    ("etcd", "cause"),
    [
        (None, "is not running"),
        (EtcdView(healthy=False), "has no quorum"),
        (EtcdView(healthy=False, error="deadline exceeded"), "deadline exceeded"),
    ],
)
def test_a_member_that_is_not_healthy(etcd, cause):
    assert only(failures(m3={"etcd": etcd})) == ("m3", "etcd", cause)


def test_members_must_be_those_of_the_inventory():
    view = healthy_etcd(DEFAULT)
    more = replace(view, members=(*view.members, EtcdMember("9", "stranger", ())))
    fewer = replace(view, members=view.members[:2])

    assert "stranger" in only(failures(m1={"etcd": more}))[2]
    assert (
        "['m1', 'm2'], the inventory has ['m1', 'm2', 'm3']"
        in only(failures(m1={"etcd": fewer}))[2]
    )


def test_an_unreachable_machine_may_be_missing_from_the_member_list():
    view = healthy_etcd(DEFAULT)
    seen = {n: o for n, o in healthy().items() if n != "m3"}
    for name in ("m1", "m2"):
        seen[name] = replace(seen[name], etcd=replace(view, members=view.members[:2]))

    assert judge(DEFAULT, seen) == []


def test_a_learner_is_no_member_yet():
    view = healthy_etcd(DEFAULT)
    members = (*view.members[:2], replace(view.members[2], learner=True))

    assert only(failures(m1={"etcd": replace(view, members=members)})) == (
        "m1",
        "etcd",
        "only learners: ['m3']",
    )


def test_nodes_must_be_registered_and_ready():
    api = healthy_api(DEFAULT)
    nodes = [n if n.name != "w1" else replace(n, ready=False) for n in api.nodes]
    view = replace(api, nodes=tuple(n for n in nodes if n.name != "w2"))

    found = failures(**{name: {"api": view} for name in ("m1", "m2", "m3")})

    assert [(f.machine, f.step, f.cause) for f in found] == [
        ("w1", "Node", "is not Ready"),
        ("w2", "Node", "has not registered"),
    ]


def networked(**changed):
    """Nodes whose pod networks are as the API says, but for the changed ones."""
    seen = healthy()
    api = api_view(seen)
    there = [replace(n, pod_cidr=f"10.244.{i}.0/24") for i, n in enumerate(api.nodes)]
    for name in (machine.name for machine in DEFAULT.masters):
        seen[name] = replace(seen[name], api=replace(api, nodes=tuple(there)))
    nodes = {n.name: n.pod_cidr for n in there}
    for name, cidr in nodes.items():
        others = frozenset(other for owner, other in nodes.items() if owner != name)
        gateway = cidr.replace(".0/", ".1/")
        pods = PodNetwork(cidr, "1500", gateway, others)
        seen[name] = replace(seen[name], pods=replace(pods, **changed.get(name, {})))
    return seen, nodes


def test_a_node_with_another_pod_network_than_its_api_object_is_a_failure():
    seen, nodes = networked()
    assert judge(DEFAULT, seen) == []

    seen, nodes = networked(w1={"cidr": "10.244.99.0/24"})
    machine, step, cause = only(judge(DEFAULT, seen))
    assert (machine, step) == ("w1", "pod network")
    assert cause == f"new pods get addresses of 10.244.99.0/24, and the Node has {nodes['w1']}"

    networks = DEFAULT.networks.model_copy(update={"plugin": "custom"})
    custom = DEFAULT.model_copy(update={"networks": networks})
    assert judge(custom, seen) == []  # another plug-in has its own rules

    seen, nodes = networked(w1={"bridge": "10.244.99.1/24"})
    assert "pods have addresses of 10.244.99.1/24" in only(judge(DEFAULT, seen))[2]


def test_a_missing_route_to_the_pods_of_another_node_is_a_failure():
    seen, nodes = networked()
    fewer = replace(seen["w1"].pods, routes=seen["w1"].pods.routes - {nodes["m2"]})
    seen["w1"] = replace(seen["w1"], pods=fewer)

    machine, step, cause = only(judge(DEFAULT, seen))

    assert (machine, step) == ("w1", "routes to pods")
    assert cause.startswith("it has no route to the pods of m2 (no OSPF neighbour): birdc")

    neighbours = {str(DEFAULT.machine("m2").address): "Init/DROther"}
    seen["w1"] = replace(seen["w1"], pods=replace(fewer, neighbours=neighbours))
    assert "m2 (OSPF neighbour in the state Init/DROther)" in only(judge(DEFAULT, seen))[2]


def test_pods_whose_host_port_has_no_rules_are_named():
    seen, _ = networked(w1={"unmapped": ("default/web", "edge/proxy-1")})

    machine, step, cause = only(judge(DEFAULT, seen))

    assert (machine, step) == ("w1", "hostPort")
    assert cause.startswith("nftables has no rules for the hostPort of default/web, edge/proxy-1: ")


def test_a_node_with_another_mtu_than_the_inventory_is_a_failure():
    networks = DEFAULT.networks.model_copy(update={"mtu": 1400})
    cluster = DEFAULT.model_copy(update={"networks": networks})
    seen, _ = networked(**{machine.name: {"mtu": "1400"} for machine in DEFAULT.nodes})
    assert judge(cluster, seen) == []

    seen["w1"] = replace(seen["w1"], pods=replace(seen["w1"].pods, mtu="1500"))
    machine, step, cause = only(judge(cluster, seen))
    assert (machine, step) == ("w1", "pod network")
    assert cause == "new pods get an MTU of 1500, and the inventory has 1400"


def test_a_machine_that_does_not_answer_needs_no_route():
    seen, nodes = networked()
    gone = {name: view for name, view in seen.items() if name != "m2"}
    fewer = replace(gone["w1"].pods, routes=gone["w1"].pods.routes - {nodes["m2"]})
    gone["w1"] = replace(gone["w1"], pods=fewer)

    assert judge(DEFAULT, gone) == []
