"""Two operators replace the same machine: who comes second finds it well."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from provision.apply import lock
from provision.apply.drain import Workload
from provision.cli import node_commands
from provision.commands import converge, nodes
from provision.model.errors import RefusedError
from provision.model.look import Look
from provision.model.source import LAB, STATIC
from provision.plan.model import MachinePlan, Plan
from tests.world import cluster

INVENTORY = Path("ha.py")


@pytest.fixture
def world(monkeypatch):
    """A dead m2, which becomes well while the operator thinks; `done` is what happens to it."""
    of, done = cluster(), []
    session = SimpleNamespace(cluster=of, draft=SimpleNamespace(source=LAB))
    dead = nodes.Leaving(session, Look(of, {}), of.machine("m2"), False, (), Workload())
    well = replace(dead, answers=True, health=("its etcd member is healthy",))

    @contextmanager
    def context(*_, **__):
        yield dead

    monkeypatch.setattr(nodes, "leaving", context)
    monkeypatch.setattr(lock, "refuse_second", lambda *_: None)
    monkeypatch.setattr(lock, "hold", context)
    monkeypatch.setattr(nodes, "look_again", lambda _: well)
    for name in ("forget", "remove"):
        monkeypatch.setattr(nodes, name, lambda case, _: done.append(case) or nodes.Left())
    return SimpleNamespace(done=done, well=well)


def test_a_machine_that_another_operator_has_replaced_meanwhile_stays(world):
    with pytest.raises(RefusedError, match="m2 is not dead: its etcd member is healthy"):
        node_commands.replace(INVENTORY, "m2", yes=True)
    assert world.done == []


def test_a_machine_leaves_as_it_is_once_the_cluster_is_locked(world, monkeypatch):
    named = SimpleNamespace(hosts=[SimpleNamespace(name="m2", roles=("etcd",))])
    monkeypatch.setattr("provision.inventory.read", lambda _: named)
    node_commands.remove(INVENTORY, ["m2"], yes=True)
    assert world.done == [world.well]


class Added:
    """A machine that is going to be added: the plans of one look after the other."""

    def __init__(self, monkeypatch, *plans):
        self.asked, self.done = [], []
        left = iter(plans)
        session = SimpleNamespace(cluster=cluster(), draft=SimpleNamespace(source=STATIC))

        @contextmanager
        def context(*_, **__):
            yield session

        def prepare(*_):
            return SimpleNamespace(plan=next(left), look=None)

        monkeypatch.setattr("provision.apply.session.open_session", context)
        monkeypatch.setattr(lock, "hold", context)
        monkeypatch.setattr(nodes, "named", lambda *_: None)
        monkeypatch.setattr(nodes, "prepare_add", prepare)
        monkeypatch.setattr(
            "provision.cli.cluster_commands.confirm", lambda *_, **__: self.asked.append(True)
        )
        monkeypatch.setattr(converge, "up", lambda run: self.done.append(run.plan))
        monkeypatch.setattr("provision.cli.views.summaries.show_up", lambda *_: None)


EMPTY, CHANGE = Plan({}), Plan({"w2": MachinePlan("w2", packages=("nftables",))})


def test_a_plan_that_changed_after_the_operator_agreed_is_not_carried_out(monkeypatch):
    world = Added(monkeypatch, CHANGE, EMPTY)
    with pytest.raises(RefusedError, match="after you confirmed the plan") as refused:
        node_commands.add(INVENTORY, "w2")
    assert "clusterctl node add ha.py w2" in refused.value.hint
    assert (len(world.asked), world.done) == (1, [])


def test_a_plan_that_did_not_change_is_carried_out(monkeypatch):
    world = Added(monkeypatch, CHANGE, CHANGE)
    node_commands.add(INVENTORY, "w2")
    assert (len(world.asked), world.done) == (1, [CHANGE])


def test_an_empty_plan_needs_no_answer(monkeypatch):
    world = Added(monkeypatch, EMPTY, EMPTY)
    node_commands.add(INVENTORY, "w2")
    assert world.asked == []
