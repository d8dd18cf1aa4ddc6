"""A restore over several machines: cut off anywhere, typed again, with data that all agree on."""

import shutil
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from provision.apply.phases import Work
from provision.apply.session import Session
from provision.commands.etcd import recover, restore
from provision.commands.etcd.snapshot_file import Snapshot
from provision.local.progress import Silent
from provision.model.errors import (
    Finding,
    PhaseError,
    PreflightError,
    RefusedError,
    UnreachableError,
)
from provision.model.look import Look
from provision.model.observed import Observed
from provision.pki import rotation
from provision.pki.trust import Part
from tests.unit.etcd_programs_test import MANIFEST, Played
from tests.world import NOW, Disk, artifacts, converged, trust

CLUSTER, SEEN = converged()
MEMBERS = ("m1", "m2", "m3")


@dataclass(frozen=True)
class Seat(Session):
    fleet: object = None

    def observe(self, *_, **__):
        return Look(CLUSTER, self.fleet.look())

    def known_trust(self, _):
        return self.fleet.known


class Fleet:
    """Three masters in directories, as an engine.

    Attributes:
        broken: (machine, piece of a program) that does not get there.
        ran: (machine, program) in their order.
    """

    def __init__(self, root):
        self.machines = {}
        for name in MEMBERS:
            (root / name).mkdir()
            self.machines[name] = Played(root / name)
            self.machines[name].formed.touch()
        self.broken, self.ran, self.kept, self.notes = {}, [], [], []
        self.away, self.new, self.known = set(), set(), trust()
        progress = Silent()
        progress.note = self.notes.append
        cache = SimpleNamespace(keep=self.kept.append, directory=lambda: root, sealed=True)
        self.session = Seat(None, None, CLUSTER, cache, self, progress, None, fleet=self)

    def look(self):
        return {
            name: Observed(name, error="did not answer", off=True)
            if name in self.away
            else Disk(CLUSTER.machine(name)).observed()
            if name in self.new
            else replace(view, restoring=self._marker(name))
            for name, view in SEEN.items()
        }

    def _marker(self, name):
        marker = self.machines[name].marker if name in self.machines else None
        return marker.read_text().strip() if marker and marker.exists() else ""

    def fetch(self, command, machines):
        return {m.name: self._fetch(m, command(m)) for m in machines}

    def _fetch(self, machine, program):
        code, out, _ = self.shell(machine, program)
        return SimpleNamespace(output=out, error="cut off" if code else "")

    def shell(self, machine, program, sent=b""):
        self.ran.append((machine.name, program))
        if self.broken.get(machine.name, "\0") in program:
            return 255, "", "the connection broke"
        program = program.replace("/etc/etcd/formed", str(self.machines[machine.name].formed))
        program = program.replace(
            "/var/lib/etcd/member", str(self.machines[machine.name].data / "member")
        )
        done = self.machines[machine.name].run(program, sent)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def stream(self, machine, program, source, *, timeout):
        return self.shell(machine, program, b"".join(source))

    def did(self, piece):
        return [name for name, program in self.ran if piece in program]

    def data(self, name):
        return sorted(p.name for p in (self.machines[name].data / "member").iterdir())

    def type(self):
        """`etcd restore`, with the same snapshot."""
        look = self.session.observe()
        self.ran.clear()
        outlook = restore.assess(self.session, look, self.snapshot)
        restore.carry_out(self.session, self.snapshot, outlook)
        return outlook


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    monkeypatch.setattr(restore, "members", lambda _: ())
    monkeypatch.setattr(restore, "verify_alone", lambda _: None)
    started = "touch /etc/etcd/formed; : start etcd"
    monkeypatch.setattr(restore.etcd_programs, "start_member", lambda *_: started)
    accepted = "touch /var/lib/etcd/member/written; : start apiserver"
    monkeypatch.setattr(restore.etcd_programs, "start_control_plane", lambda: accepted)
    database = tmp_path / "etcd.db"
    database.write_bytes(b"data")
    made = Fleet(tmp_path)
    made.snapshot = Snapshot("FILE", MANIFEST, trust(), database, "")
    return made


MARKER, DATA, RELEASE, CLEAN = (
    'mv -fT "$marker.new"',
    "--bump-revision",
    'rm -f "$marker"',
    '"$data/restoring" "$data"/restored-*',
)


def test_a_restore_leaves_nothing_behind_and_no_worker_hears_of_it(fleet):
    fleet.type()

    for name, machine in fleet.machines.items():
        assert fleet.data(name) == ["db", "written"]
        assert not machine.marker.exists()
        assert not (machine.data / "before-restore").exists()
    assert {name for name, _ in fleet.ran} == set(MEMBERS)


@pytest.mark.parametrize("piece", [MARKER, DATA, "start etcd", "start apiserver", RELEASE])
@pytest.mark.parametrize("broken", ["m1", "m3"])
def test_cut_off_on_one_machine_and_typed_again_all_have_the_same(fleet, piece, broken):
    fleet.broken = {broken: piece}
    with pytest.raises(PhaseError):
        fleet.type()
    fleet.broken = {}

    fleet.type()

    bumps = {p.split("bump=")[1].split("\n")[0] for _, p in fleet.ran if DATA in p}
    brought = fleet.did(DATA)
    assert brought in ([], list(MEMBERS))
    assert len(bumps) <= 1
    assert all(not m.marker.exists() for m in fleet.machines.values())
    assert {tuple(fleet.data(name)) for name in MEMBERS} == {("db", "written")}


@pytest.mark.parametrize("piece", ["start etcd", "start apiserver", RELEASE])
def test_data_written_since_the_restore_are_not_overwritten(fleet, piece):
    fleet.broken = {"m3": piece}
    with pytest.raises(PhaseError):
        fleet.type()
    for name in MEMBERS:
        (fleet.machines[name].data / "member" / "acknowledged").touch()
    fleet.broken = {}

    outlook = fleet.type()

    assert outlook.brought
    assert "stay" in outlook.lost(fleet.snapshot)
    assert fleet.did(MARKER) == fleet.did(DATA) == []
    assert all("acknowledged" in fleet.data(name) for name in MEMBERS)


def test_markers_are_deleted_once_all_members_run_and_old_data_after_all_markers(fleet):
    fleet.type()
    order = [k for _, p in fleet.ran for k in ("start apiserver", RELEASE, CLEAN) if k in p]
    assert order == ["start apiserver"] * 3 + [RELEASE] * 3 + [CLEAN] * 3


def test_old_data_that_cannot_be_removed_are_noted_and_not_adopted_by_a_new_restore(fleet):
    fleet.broken = {"m2": CLEAN}
    fleet.type()
    assert "m2: its old data are still in" in fleet.notes[0]
    fleet.broken = {"m3": DATA}

    with pytest.raises(PhaseError):  # no machine shows that it is not a new restore
        fleet.type()
    assert fleet.did(DATA) == list(MEMBERS)
    assert "written" in [p.name for p in (fleet.machines["m2"].data / "before-restore").iterdir()]


def test_a_marker_that_does_not_go_says_that_the_cluster_runs(fleet):
    fleet.broken = {"m3": RELEASE}
    with pytest.raises(PhaseError) as failed:
        fleet.type()
    assert failed.value.hint.startswith("the cluster runs")


def test_a_machine_that_was_away_when_the_others_went_on_is_not_taken_to_have_the_same(fleet):
    fleet.broken = {"m3": RELEASE}
    with pytest.raises(PhaseError):
        fleet.type()
    fleet.broken, fleet.away = {}, {"m3"}
    second = fleet.type()
    fleet.away = set()

    third = fleet.type()

    assert not third.brought
    assert fleet.did(DATA) == list(MEMBERS)
    assert third.target.bump > restore.BUMP
    assert len({second.target.id, third.target.id}) == 2


def test_a_machine_that_does_not_say_whether_it_has_the_data_is_not_taken_to_lack_them(fleet):
    fleet.broken = {"m3": RELEASE}
    with pytest.raises(PhaseError):
        fleet.type()
    fleet.broken = {"m1": "echo yes"}
    with pytest.raises(UnreachableError, match="m1"):
        fleet.type()
    assert fleet.did(MARKER) == []


def test_data_restored_again_get_higher_revisions_than_before(fleet):
    fleet.broken = {"m3": DATA}
    with pytest.raises(PhaseError):
        fleet.type()
    fleet.broken = {}
    assert fleet.type().target.bump > restore.BUMP


# Machines that lack something: installed with the data


@pytest.fixture
def installing(fleet, monkeypatch):
    """m1 has data, m2 is new, m3 does not answer; of what is installed only the data are brought."""

    def execute(run, phases):
        fleet.run = run
        for phase in [p for p in phases if p.name == "data"]:
            phase.run(Work(run, phase, run.machines(phase.machines(run)), run.session.progress))

    def judge(_, observed, __):
        fleet.judged = observed
        return fleet.unfit

    monkeypatch.setattr(restore, "execute", execute)
    monkeypatch.setattr(restore, "preflight", judge)
    monkeypatch.setattr(restore.converge, "needed_artifacts", lambda *_: artifacts(CLUSTER))
    fleet.unfit, fleet.new, fleet.away = [], {"m2"}, {"m3"}
    shutil.rmtree(fleet.machines["m2"].data)
    fleet.machines["m2"].formed.unlink()
    return fleet


def test_an_unreachable_member_is_left_out_and_the_others_are_installed_with_their_data(installing):
    outlook = installing.type()

    assert outlook.fresh
    assert set(outlook.left_out) == {"m3"}
    assert installing.did(DATA) == ["m1", "m2"]
    plan = installing.run.plan
    assert set(plan.absent) == {"m3"}
    assert not plan.running
    assert not any(p.form_etcd or p.join_etcd for p in plan.machines.values())
    assert [u.action for u in plan.machines["m1"].components["etcd"].units] == ["start"]
    assert [u.name for u in plan.machines["m2"].components["etcd"].units] == ["etcd.service"]
    assert {"kube-apiserver", "kube-controller-manager", "kube-scheduler"} <= set(
        plan.machines["m1"].components
    )


@pytest.mark.parametrize("why", ["unfit", "artifacts", "plan", "unsigned"])
def test_a_restore_is_refused_before_anything_is_stopped(installing, monkeypatch, why):
    def refuse(*_):
        raise RefusedError(why)

    if why == "unfit":
        installing.unfit = [Finding("m2", "its clock is wrong", "set it")]
    elif why == "artifacts":
        monkeypatch.setattr(restore.converge, "needed_artifacts", refuse)
    else:
        monkeypatch.setattr(restore, {"plan": "make_plan"}.get(why, "refuse_unsigned"), refuse)

    with pytest.raises((RefusedError, PreflightError)):
        installing.type()
    assert installing.did(MARKER) == installing.kept == []

    snapshot_of = recover.rescued(
        installing.session,
        installing.session.observe(),
        recover.Remains({"m1": ""}, ("m2",), {"m3": ""}),
    )
    with pytest.raises((RefusedError, PreflightError)), snapshot_of:
        pass
    assert installing.did(MARKER) == []


def test_a_restore_that_was_cut_off_while_it_installed_goes_on_installing(installing):
    installing.broken = {"m1": RELEASE}
    with pytest.raises(PhaseError):
        installing.type()
    # By now all that etcd and the control plane need is there, and perhaps no kubelet.
    installing.new, installing.broken = set(), {}

    outlook = installing.type()

    assert outlook.fresh
    assert outlook.brought
    assert installing.did(DATA) == installing.did(MARKER) == []
    # m3 is away all the same: preflight must not take the cluster for a new one.
    assert installing.judged["m1"].etcd_formed


def test_a_member_that_answers_again_is_not_started_with_its_old_data(installing):
    look = installing.session.observe()
    outlook = restore.assess(installing.session, look, installing.snapshot)
    installing.away = set()
    with pytest.raises(RefusedError, match="m3 did not answer a moment ago"):
        restore.carry_out(installing.session, installing.snapshot, outlook)
    assert installing.did(MARKER) == []


# Whose keys


def having(fleet, keys):
    """Masters whose records say that they have keys."""
    look = fleet.look
    fleet.look = lambda: {
        name: replace(view, trust=(keys.generation, "")) if name in MEMBERS else view
        for name, view in look().items()
    }
    fleet.known = keys


def rotated(part):
    keys = rotation.begin(trust(), [part], "demo", NOW)
    while keys.rotations:
        keys = rotation.advance(keys, [part], NOW)
    return keys


def test_in_place_the_cluster_keeps_its_keys_and_so_does_the_cache(fleet):
    having(fleet, rotated(Part.SERVICE_ACCOUNT))
    fleet.type()
    assert fleet.kept == []


def test_an_in_place_restore_refuses_secrets_that_no_key_decrypts(fleet):
    having(fleet, rotated(Part.ENCRYPTION))
    with pytest.raises(RefusedError, match="rotate-key"):
        fleet.type()
    assert fleet.ran == fleet.kept == []


def test_new_machines_get_the_keys_of_the_snapshot_and_the_cache_too(installing):
    installing.known = rotated(Part.ENCRYPTION)  # of a cache; no machine has them
    installing.type()
    assert installing.kept == [trust()]
    assert installing.run.trust == trust()


def test_a_new_machine_among_others_gets_the_keys_that_those_have(installing):
    keys = rotated(Part.SERVICE_ACCOUNT)
    having(installing, keys)
    installing.type()
    assert installing.kept == []
    assert installing.run.trust == keys
