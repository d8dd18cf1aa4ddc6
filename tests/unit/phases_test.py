"""Phases: where each has something to do, in which order they run, and what may overlap."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import gevent
import pytest
from gevent.event import Event

from provision.apply import phases
from provision.apply.phases import RENEW, UP, Phase, Run, execute, overlap
from provision.apply.unfinished import marked
from provision.commands import converge
from provision.local.progress import Silent
from provision.model import paths
from provision.model.errors import Failure, PhaseError, UnreachableError
from provision.model.look import Look
from provision.plan.model import Plan
from tests.world import NOW, artifacts, cluster, converged, disks, look, plan_of, trust

CLUSTER = cluster()
ALL = ("m1", "m2", "m3", "w1", "w2")
MASTERS = ("m1", "m2", "m3")


class Shown(Silent):
    """Remembers when phases began and ended."""

    def __init__(self):
        self.events = []

    @contextmanager
    def phase(self, name, summary, subjects):
        self.events.append(f"{name} began")
        try:
            yield self
        except BaseException:
            self.events.append(f"{name} failed")
            raise
        self.events.append(f"{name} ended")


class Disks:
    """The masters' disks: which of them have the mark of a run that did not finish."""

    def __init__(self):
        self.marked = set()

    def shell(self, machine, program):
        if program.startswith("rm "):
            self.marked.discard(machine.name)
        else:
            assert paths.UNFINISHED in program
            self.marked.add(machine.name)
        return 0, "", ""


def run_of(plan=None, observed=None, of=CLUSTER):
    cache = SimpleNamespace(sealed=True)
    session = SimpleNamespace(cluster=of, progress=Shown(), cache=cache, took=1.0, engine=Disks())
    plan = plan or Plan({})
    return Run(session, Look(of, observed or {}), trust(), artifacts(of), plan, NOW)


class World:
    """Phases that note what they do; a test lets each go on by hand."""

    def __init__(self):
        self.run = run_of()
        self.log = []
        self.gates = {}
        self.broken = {}

    @property
    def events(self):
        return self.run.session.progress.events

    def phase(self, name, machines=ALL, **order):
        def work(work):
            names = tuple(machine.name for machine in work.machines)
            self.log.append((name, names))
            for key in (name, *((name, machine) for machine in names)):
                if gate := self.gates.get(key):
                    gate.wait()
            for machine in names:
                if error := self.broken.get((name, machine)):
                    raise error

        return Phase(name, "", lambda _: machines, work, **order)

    def hold(self, *key):
        return self.gates.setdefault(key[0] if len(key) == 1 else key, Event())

    def began(self, name):
        return [where for what, where in self.log if what == name]


@pytest.fixture
def world():
    return World()


@contextmanager
def overlapping(world, *wanted):
    """Carries them out beside the test; at the end all gates are open."""
    job = gevent.spawn(overlap, world.run, wanted)
    gevent.sleep(0)
    settle()
    yield job
    for gate in world.gates.values():
        gate.set()
    job.get(timeout=5)


def settle():
    for _ in range(20):
        gevent.sleep(0)


def failed(machine, phase="p", **more):
    return PhaseError(phase, [Failure(machine, "step", "cause")], **more)


# Where there is something to do


def where(wanted, run):
    return {phase.name: names for phase in wanted if (names := phase.machines(run))}


@pytest.fixture(scope="module")
def fresh():
    observed = look(CLUSTER, disks(CLUSTER))
    return run_of(plan_of(CLUSTER, observed), observed)


def test_a_new_cluster_goes_through_every_phase_but_removals(fresh):
    assert where(UP, fresh) == {
        "packages": ALL,
        "artifacts": ALL,
        "services": ALL,
        "etcd": MASTERS,
        "control plane": MASTERS,
        "objects": ("m1",),
        "nodes": ALL,
        "ready": ALL,
        "dns": ("m1",),
        "verify": ALL,
        "add-ons": ("m1",),
    }


def test_a_cluster_that_is_as_it_should_be_is_only_looked_at():
    of, observed = converged(CLUSTER)
    run = run_of(plan_of(of, observed), observed)
    assert set(where(UP, run)) == {"ready", "dns", "verify", "add-ons"}


def test_renewal_changes_the_control_plane_machine_by_machine_then_the_others(fresh):
    assert where(RENEW, fresh) == {
        "control plane": MASTERS,
        "services": ("w1", "w2"),
        "objects": ("m1",),
        "nodes": ALL,
        "ready": ALL,
        "dns": ("m1",),
    }


# The order


def test_every_phase_of_up_comes_after_what_it_depends_on():
    for index, phase in enumerate(UP):
        assert {*phase.after, *phase.after_here} <= set(UP[:index]), phase.name


def dependencies(phase):
    direct = {*phase.after, *phase.after_here}
    return direct.union(*(dependencies(earlier) for earlier in direct))


def test_phases_that_must_never_overlap_depend_on_each_other():
    assert phases.FIREWALL in dependencies(phases.ARTIFACTS)
    assert phases.ETCD in phases.CONTROL_PLANE.after  # no apiserver without a quorum
    assert phases.OBJECTS in phases.NODES.after  # the token is there before a kubelet uses it
    assert {phases.SERVICES, phases.CONTROL_PLANE} <= dependencies(phases.NODES)
    assert phases.READY in phases.VERIFY.after
    assert set(UP) - {phases.GROUP} == dependencies(phases.GROUP)


def test_in_strict_order_a_phase_begins_when_the_one_before_it_has_ended(world):
    execute(world.run, [world.phase("a"), world.phase("b", ()), world.phase("c", ("m1",))])
    assert world.log == [("a", ALL), ("c", ("m1",))]
    assert world.events == ["a began", "a ended", "c began", "c ended"]
    assert set(world.run.seconds) == {"a", "c"}


def test_in_strict_order_no_phase_follows_a_failure(world):
    world.broken["a", "m1"] = failed("m1")
    with pytest.raises(PhaseError):
        execute(world.run, [world.phase("a"), world.phase("b")])
    assert world.events == ["a began", "a failed"]


def test_phases_that_do_not_depend_on_each_other_run_at_the_same_time(world):
    a = world.phase("a")
    b, c = world.phase("b", after=(a,)), world.phase("c", after=(a,))
    world.hold("b"), world.hold("c")
    with overlapping(world, a, b, c):
        assert world.events == ["a began", "a ended", "b began", "c began"]
    assert sorted(world.events[4:]) == ["b ended", "c ended"]
    assert set(world.run.seconds) == {"a", "b", "c"}


def test_a_phase_waits_for_all_machines_of_the_one_it_comes_after(world):
    a = world.phase("a", each=True)
    b = world.phase("b", ("m1",), after=(a,))
    gate = world.hold("a", "w2")
    with overlapping(world, a, b):
        assert world.began("a") == [(name,) for name in ALL]
        assert not world.began("b")
        gate.set()
        settle()
        assert world.began("b") == [("m1",)]


def test_a_machine_goes_on_while_another_is_slow(world):
    a = world.phase("a", each=True)
    b = world.phase("b", after_here=(a,), each=True)
    world.hold("a", "m2")
    with overlapping(world, a, b):
        assert set(world.began("b")) == {("m1",), ("m3",), ("w1",), ("w2",)}
    assert ("m2",) in world.began("b")


def test_a_phase_on_all_its_machines_waits_for_these_and_no_others(world):
    a = world.phase("a", each=True)
    b = world.phase("b", MASTERS, after_here=(a,))
    world.hold("a", "w1")
    with overlapping(world, a, b):
        assert world.began("b") == [MASTERS]


def test_a_machine_goes_on_as_soon_as_the_phase_says_that_it_has_finished_there(world):
    rest = Event()

    def deliver(work):
        work.finished(work.machines[3])
        rest.wait()

    a = Phase("a", "", lambda _: ALL, deliver)
    b = world.phase("b", after_here=(a,), each=True)
    world.gates["a"] = rest
    with overlapping(world, a, b):
        assert world.began("b") == [("w1",)]
    assert len(world.began("b")) == len(ALL)


def test_a_phase_without_anything_to_do_still_keeps_the_order(world):
    a = world.phase("a")
    nothing = world.phase("nothing", (), after=(a,))
    c = world.phase("c", after=(nothing,))
    world.hold("a")
    with overlapping(world, a, nothing, c):
        assert world.log == [("a", ALL)]
    assert world.log == [("a", ALL), ("c", ALL)]
    assert "nothing began" not in world.events


def test_a_phase_that_is_left_out_still_keeps_the_order(world):
    a = world.phase("a")
    out = world.phase("out", after=(a,))
    c = world.phase("c", after=(out,))
    world.hold("a")
    with overlapping(world, a, c):
        assert world.log == [("a", ALL)]
    assert world.log == [("a", ALL), ("c", ALL)]


# Which order `up` chooses


def begun_while_the_first_is_held(world, run, monkeypatch):
    """The phases that `up` began while the first of two independent phases could not end."""
    world.run = run
    first, second = world.phase("first"), world.phase("second")
    gate = world.hold("first")
    monkeypatch.setattr(converge, "UP", (first, second))
    job = gevent.spawn(converge.up, run)
    settle()
    begun = [name for name, _ in world.log]
    gate.set()
    job.get(timeout=5)
    assert [name for name, _ in world.log] == ["first", "second"]
    return begun


def test_up_overlaps_phases_on_a_new_cluster(world, fresh, monkeypatch):
    assert not fresh.plan.running
    assert begun_while_the_first_is_held(world, fresh, monkeypatch) == ["first", "second"]


def test_up_changes_a_running_cluster_in_strict_order(world, monkeypatch):
    of, observed = converged(CLUSTER)
    run = run_of(plan_of(of, observed), observed)
    assert run.plan.running
    assert begun_while_the_first_is_held(world, run, monkeypatch) == ["first"]


# Failure


def test_masters_are_marked_until_the_run_has_finished(world, fresh, monkeypatch):
    (phase,) = (world.phase("first"),)
    monkeypatch.setattr(converge, "UP", (phase,))
    world.hold("first")
    job = gevent.spawn(converge.up, fresh)
    settle()
    assert fresh.session.engine.marked == set(MASTERS)
    world.gates["first"].set()
    job.get(timeout=5)
    assert fresh.session.engine.marked == set()


@pytest.mark.parametrize("error", [failed("m1"), KeyboardInterrupt(), UnreachableError("m1")])
def test_a_run_that_did_not_finish_leaves_the_mark(fresh, error):
    with pytest.raises(type(error)), marked(fresh):
        raise error
    assert fresh.session.engine.marked == set(MASTERS)


@pytest.mark.parametrize("before", ["", "2026-12-01 by root@desk"])
def test_a_run_for_a_worker_marks_the_master_it_looked_at_and_keeps_an_older_mark(before):
    of, observed = converged(CLUSTER)
    whole = plan_of(of, observed)
    seen = {name: observed[name] for name in ("m2", "w2")}
    seen["m2"] = replace(seen["m2"], unfinished=before)
    run = run_of(replace(whole, machines={"w2": whole.machines["w2"]}), seen)
    disks = run.session.engine
    disks.marked = {"m2"} if before else set()

    with marked(run):
        assert disks.marked == {"m2"}
    assert disks.marked == ({"m2"} if before else set())


def test_up_verifies_a_cluster_whose_last_run_did_not_finish():
    of, observed = converged(CLUSTER)
    plan = plan_of(of, observed)
    assert plan.empty
    left = observed | {"m2": replace(observed["m2"], unfinished="2026-12-01 by root@desk")}

    run = run_of(plan, left)

    assert not converge.settled(run)
    assert "a command that began 2026-12-01 by root@desk did not finish" in converge.problems(run)


def test_after_a_failure_what_runs_goes_on_to_its_end_and_nothing_else_begins(world):
    a, b = world.phase("a"), world.phase("b")
    c = world.phase("c", after=(b,))
    world.broken["a", "m1"] = failed("m1")
    world.hold("b")
    with pytest.raises(PhaseError, match="m1: step: cause"), overlapping(world, a, b, c):
        assert world.began("b")
    assert "b ended" in world.events
    assert "a failed" in world.events
    assert not world.began("c")


def test_a_phase_that_has_begun_goes_on_to_the_other_machines(world):
    a = world.phase("a", each=True)
    b = world.phase("b", after_here=(a,), each=True)
    world.hold("a", "w2")
    world.broken["b", "m1"] = failed("m1")
    world.broken["b", "w2"] = failed("w2")
    with pytest.raises(PhaseError) as caught, overlapping(world, a, b):
        assert ("w2",) not in world.began("b")
    assert [failure.machine for failure in caught.value.failures] == ["m1", "w2"]


def test_machines_that_failed_in_different_phases_are_all_reported(world):
    a, b = world.phase("a", ("m1",)), world.phase("b", ("w1",))
    world.broken["a", "m1"] = failed("m1", "a", hint="do this")
    world.broken["b", "w1"] = failed("w1", "b", hint="do that")
    with pytest.raises(PhaseError) as caught:
        overlap(world.run, [a, b])
    assert caught.value.phase == "a and b"
    assert [failure.machine for failure in caught.value.failures] == ["m1", "w1"]
    assert caught.value.hint == "do this\ndo that"


def test_an_error_that_names_no_machine_is_reported_with_the_machines_of_its_phase(world):
    a, b = world.phase("a", ("m1",)), world.phase("b", ("w1",))
    world.broken["a", "m1"] = UnreachableError("no master answers")
    world.broken["b", "w1"] = failed("w1")
    with pytest.raises(PhaseError) as caught:
        overlap(world.run, [a, b])
    assert [(f.machine, f.cause) for f in caught.value.failures] == [
        ("m1", "no master answers"),
        ("w1", "cause"),
    ]


@pytest.mark.parametrize("error", [UnreachableError("no master answers"), ValueError("a mistake")])
def test_an_error_that_is_alone_is_raised_as_it_is(world, error):
    world.broken["a", "m1"] = error
    with pytest.raises(type(error)) as caught:
        overlap(world.run, [world.phase("a")])
    assert caught.value is error


def test_a_mistake_of_the_program_is_never_hidden_behind_a_failure(world):
    a, b = world.phase("a", ("m1",)), world.phase("b", ("w1",))
    world.broken["a", "m1"] = failed("m1")
    world.broken["b", "w1"] = ValueError("a mistake")
    with pytest.raises(ValueError, match="a mistake"):
        overlap(world.run, [a, b])


# Interruption


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interruption_unwinds_every_phase_that_runs_and_begins_no_other(world, reason):
    unwound = []

    def work(work):
        try:
            gevent.sleep(60)
        finally:
            unwound.append(work.phase.name)

    a, b = (Phase(name, "", lambda _: ALL, work) for name in "ab")
    c = world.phase("c", after=(a,))
    job = gevent.spawn(overlap, world.run, [a, b, c])
    settle()
    job.kill(reason, block=False)
    with pytest.raises(type(reason)):
        job.get(timeout=5)
    assert sorted(unwound) == ["a", "b"]
    assert sorted(world.events[2:]) == ["a failed", "b failed"]
    assert not world.began("c")


# A machine's lock


def test_no_two_phases_that_change_the_same_machine_overlap():
    """A program that waits too long for the lock of its machine fails."""
    changing = (
        phases.PACKAGES,
        phases.FIREWALL,
        phases.REMOVE_FIREWALL,
        phases.ARTIFACTS,
        phases.SERVICES,
        phases.ETCD,
        phases.CONTROL_PLANE,
        phases.NODES,
        phases.PRUNE,
    )
    for index, phase in enumerate(changing):
        for earlier in changing[:index]:
            assert earlier in dependencies(phase), (earlier.name, phase.name)
