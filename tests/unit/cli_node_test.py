"""Two operators replace the same machine: who comes second finds it well."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from provision.apply import lock
from provision.apply.drain import Workload
from provision.cli import node_commands
from provision.commands import nodes
from provision.model.errors import RefusedError
from provision.model.look import Look
from provision.model.source import LAB
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
