"""May a machine leave, and is it well?"""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from provision.apply.drain import Workload
from provision.commands import nodes
from provision.commands.nodes import health, leaving, prepare_add, refuse_leaving, staying
from provision.local.progress import Silent
from provision.model.cluster import Role
from provision.model.errors import RefusedError, UnreachableError
from provision.model.look import Look
from provision.model.observed import EtcdMember, EtcdView, NodeView, Observed
from tests.world import cluster, converged, healthy_api, machine, master, worker

THREE = cluster()


def seen(of=THREE, *, off=()):
    """A healthy cluster, save for machines that are off."""
    listed = tuple(EtcdMember(m.name, m.name, ("",)) for m in of.etcd_members)
    _, views = converged(of)
    return {
        name: Observed(name, error="did not answer", off=True)
        if name in off
        else replace(view, etcd=EtcdView(healthy=True, id=name, members=listed))
        if of.machine(name).has_etcd
        else view
        for name, view in views.items()
    }


def test_a_worker_may_always_be_removed():
    refuse_leaving(THREE, seen(), THREE.machine("w1"))
    refuse_leaving(THREE, {}, THREE.machine("w1"))


@pytest.mark.parametrize("off", [(), ("m2",)])
def test_one_master_of_three_may_be_removed_dead_or_alive(off):
    refuse_leaving(THREE, seen(off=off), THREE.machine("m2"))


def test_a_healthy_master_stays_while_another_is_away():
    with pytest.raises(RefusedError) as refused:
        refuse_leaving(THREE, seen(off=("m2",)), THREE.machine("m1"))
    assert "m1 must not be removed" in refused.value.message
    assert "m2" in refused.value.hint


def test_without_a_quorum_no_member_may_leave():
    views = {name: replace(v, etcd=None) for name, v in seen(off=("m2", "m3")).items()}
    with pytest.raises(RefusedError) as refused:
        refuse_leaving(THREE, views, THREE.machine("m2"))
    assert "clusterctl recover" in refused.value.hint


def test_the_last_master_stays():
    one = cluster(master("m1"), worker("w1"))
    with pytest.raises(RefusedError) as refused:
        refuse_leaving(one, seen(one), one.machine("m1"))
    assert "clusterctl down" in refused.value.hint


def test_the_last_etcd_member_stays_where_there_are_more_masters():
    apart = cluster(
        machine("m1", Role.MASTER), machine("m2", Role.MASTER), machine("e1", Role.ETCD)
    )
    with pytest.raises(RefusedError, match="only member"):
        refuse_leaving(apart, seen(apart), apart.machine("e1"))


def test_health_is_what_the_others_say():
    views = seen()
    assert health(THREE, views, THREE.machine("m1")) == (
        "its etcd member is healthy",
        "its Node is Ready",
    )
    api = replace(healthy_api(THREE), nodes=(NodeView("m2", ready=False),))
    views = {n: replace(v, api=api if v.api else None) for n, v in seen(off=("m2",)).items()}
    assert health(THREE, views, THREE.machine("m2")) == ()


def test_a_node_that_was_ready_a_moment_ago_is_not_well_when_its_machine_is_gone_or_empty():
    views = seen(off=("w1",))
    api = replace(healthy_api(THREE), nodes=(NodeView("w1", ready=True),))
    views = {n: replace(v, api=api if v.api else None) for n, v in views.items()}
    worker1 = THREE.machine("w1")
    assert health(THREE, views, worker1) == ("its Node is Ready",)
    assert health(THREE, views, worker1, gone=True) == ()
    emptied = {**views, "w1": replace(seen()["w1"], registered=False)}
    assert health(THREE, emptied, worker1) == ()


def test_a_removal_adds_no_worker_that_has_not_joined_yet():
    larger = cluster(*THREE.machines, worker("w3"), worker("w4"), worker("w5"))
    views = seen(larger, off=("w5",))
    views["w4"] = replace(views["w4"], registered=False)

    names = [machine.name for machine in staying(larger, views, "w1")]

    assert names == ["m1", "m2", "m3", "w2", "w3", "w5"]


@dataclass(frozen=True)
class Played:
    """A session of machines, some of which are no more."""

    views: dict
    gone: tuple = ()
    cluster: object = THREE
    draft: object = None

    @property
    def source(self):
        return self

    def status(self, _):
        return [SimpleNamespace(name=n, state="absent") for n in self.gone]

    def observe(self, names=None, *, gone=()):
        machines = [m.name for m in self.cluster.machines if names is None or m.name in names]
        observed = {n: self.views[n] for n in machines if n not in gone}
        observed |= {n: Observed(n, error=gone[n], off=True) for n in gone}
        return Look(self.cluster, observed)


def test_machines_leave_one_after_the_other_though_the_first_ones_are_no_more(monkeypatch):
    session = Played(seen(), gone=("w1",))

    @contextmanager
    def open_session(_, __, *, names):
        if absent := set(session.gone) & set(names):
            raise RefusedError(f"these machines do not exist yet: {absent}")
        yield session

    monkeypatch.setattr(nodes, "open_session", open_session)
    monkeypatch.setattr(nodes, "named", lambda *_: tuple(seen()))
    monkeypatch.setattr(nodes, "workload", lambda *_: Workload((), ()))

    with leaving(THREE.inventory, "w2", Silent(), left=("w1",)) as case:
        assert case.machine.name == "w2"
    # Nor does the second removal bring it back.
    assert [m.name for m in case.session.cluster.machines] == ["m1", "m2", "m3", "w2"]


def test_a_worker_is_added_by_way_of_the_first_master_that_is_ready(monkeypatch):
    views = {**seen(off=("m1",)), "w2": Observed("w2", off=True)}
    session = Played(views)
    asked = []

    def prepare(_, look):
        asked.append(tuple(look))
        plan = SimpleNamespace(absent={"w2": "it is off"}, machines={})
        return SimpleNamespace(plan=plan), ()

    monkeypatch.setattr(nodes.converge, "prepare", prepare)

    with pytest.raises(UnreachableError, match="it is off"):
        prepare_add(session, "w2")
    assert asked == [("m2", "w2")]
