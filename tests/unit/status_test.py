"""What `status` calls a problem."""

from dataclasses import replace

from provision.cli.views.status import collect
from provision.model.holder import Holder
from provision.model.observed import api_view
from tests.world import converged


def test_a_unit_that_systemd_calls_active_though_its_table_is_gone_is_a_problem():
    of, seen = converged()
    name = "clusterctl-masquerade.service"
    lost = replace(seen["w1"].units[name], lacks="ip clusterctl")
    flushed = replace(seen["w1"], units={**seen["w1"].units, name: lost})

    new = {*collect(of, seen | {"w1": flushed})["problems"]} - {*collect(of, seen)["problems"]}

    assert new == {f"w1: {name} is active, but nftables has no table ip clusterctl"}


def added(before, **views):
    """The problems that a change of some machines' answers adds."""
    of, seen = before
    old = collect(of, seen)["problems"]
    return [problem for problem in collect(of, seen | views)["problems"] if problem not in old]


def test_a_command_that_did_not_finish_is_a_problem_and_one_that_runs_is_none():
    of, seen = converged()
    left = replace(seen["m2"], unfinished="2026-12-01 00:00:00 UTC by root@desk")
    working = replace(left, holder=Holder("root", "desk", 1, "clusterctl up"))

    (problem,) = added((of, seen), m2=left)

    assert "began 2026-12-01 00:00:00 UTC by root@desk did not finish" in problem
    assert problem.endswith(f"clusterctl up {of.inventory}")
    assert added((of, seen), m2=working) == []


def test_an_addon_without_all_its_pods_is_a_problem():
    of, seen = converged()
    api = api_view(seen)

    def ready(count):
        return replace(
            api,
            objects=tuple(
                {**o, "status": {**o["status"], "readyReplicas": count}}
                if (o["kind"], o["metadata"]["name"]) == ("Deployment", "coredns")
                else o
                for o in api.objects
            ),
        )

    fewer, gone = ready(1), ready(0)

    both = added((of, seen), m1=replace(seen["m1"], api=fewer))
    none = added((of, seen), m1=replace(seen["m1"], api=gone))

    assert both == ["m1: add-on kube-system/coredns: 1 of 2 pods are ready"]
    assert none == ["m1: add-on kube-system/coredns: 0 of 2 pods are ready"]


def test_an_object_of_an_addon_that_was_deleted_is_a_problem():
    of, seen = converged()
    api = api_view(seen)
    objects = tuple(o for o in api.objects if o["kind"] != "StorageClass")

    assert added((of, seen), m1=replace(seen["m1"], api=replace(api, objects=objects))) == [
        f"m1: manifest local-path: StorageClass local-path is missing: clusterctl up {of.inventory}"
    ]


def test_the_addons_are_shown_with_their_pods():
    addons = collect(*converged())["addons"]

    assert addons["kube-system/coredns"] == {"ready": 2, "wanted": 2}
    assert addons["local-path-storage/local-path-provisioner"] == {"ready": 1, "wanted": 1}


def test_a_unit_that_ends_again_and_again_is_a_problem():
    of, seen = converged()

    def ends(times, sub="auto-restart"):
        unit = seen["w1"].units["kubelet.service"]
        broken = replace(unit, active="activating", sub=sub, restarts=times)
        units = {**seen["w1"].units, "kubelet.service": broken}
        problems = added((of, seen), w1=replace(seen["w1"], units=units))
        return [problem for problem in problems if "again and again" in problem]

    (problem,) = ends(33)
    assert "w1: kubelet.service ends again and again: systemd has restarted it 33 times" in problem
    assert ends(1) == []
    assert ends(33, sub="running") == []
