"""The programs that run on machines."""

import hashlib
import os
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
import zstandard

from provision.desired import etcd_programs
from provision.desired.etcd_programs import Target
from provision.model.cluster import Role
from provision.model.snapshot import Manifest
from tests.world import cluster, machine, trust

SEPARATE = cluster(machine("m1", Role.MASTER), machine("e1", Role.ETCD), machine("e2", Role.ETCD))


MANIFEST = Manifest(
    format=1,
    cluster="demo",
    fingerprint="",
    machine="m1",
    created=datetime(2026, 11, 21, tzinfo=UTC),
    kubernetes="1.36.3",
    etcd="3.6.16",
    revision=1,
    keys=1,
    size=4,
    sha256=hashlib.sha256(b"data").hexdigest(),
)
TARGET = Target(MANIFEST.sha256, 10**9, ("m1", "m2", "m3"))


def all_of(cluster_, master):
    return {
        "status": etcd_programs.status(cluster_, master),
        "snapshot": etcd_programs.snapshot(cluster_, master),
        "verify": etcd_programs.verify(cluster_, master, MANIFEST),
        "defrag": etcd_programs.defrag(cluster_, master, "defrag"),
        "stop": etcd_programs.stop("sha 1", ["etcd.service"]),
        "restore": etcd_programs.restore(cluster_, master, cluster_.masters, TARGET, MANIFEST),
        "start_member": etcd_programs.start_member(cluster_, master),
        "start_control_plane": etcd_programs.start_control_plane(),
        "room": etcd_programs.room(MANIFEST),
        "brought": etcd_programs.brought(TARGET),
        "release": etcd_programs.release(),
        "clean": etcd_programs.clean(),
        "revision": etcd_programs.revision(),
        "rescue": etcd_programs.rescue(cluster_, master),
    }


PROGRAMS = all_of(cluster(), cluster().masters[0])


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_every_shell_can_parse_the_program(name, shell):
    done = subprocess.run(
        [shell, "-n"], check=False, input=PROGRAMS[name], text=True, capture_output=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_program_has_a_secret_in_it(name):
    for file in trust().files().values():
        if file.secret:
            assert file.content.decode().strip() not in PROGRAMS[name]


def test_a_stacked_master_asks_its_own_member_and_a_separate_one_asks_all():
    own = etcd_programs.snapshot(cluster(), cluster().masters[1])
    others = etcd_programs.snapshot(SEPARATE, SEPARATE.masters[0])

    assert own.count(":2379") == 1
    assert others.count(":2379") == 2


MV = shutil.which("mv")
FULL = "echo; echo disk 1048576 1048576 0 100% /\n"


def play(tools, **programs_):
    """Programs that stand for those of a machine."""
    tools.mkdir(exist_ok=True)
    for name, text in programs_.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}")
        (tools / name).chmod(0o755)


def test_a_full_disk_is_reported_and_no_snapshot_is_left(tmp_path):
    tools = tmp_path / "tools"
    status = """echo '[{"Status":{"dbSize":104857600}}]'"""
    play(tools, df=FULL, etcdctl=status, etcdutl="exit 0", zstd="cat")
    program = etcd_programs.snapshot(cluster(), cluster().masters[0])
    for real, here in (
        ("bin=/usr/local/bin", f"bin={tools}"),
        ("state=/var/lib/clusterctl", f"state={tmp_path}"),
        ("PATH=/usr/local/sbin:", f"PATH={tools}:/usr/local/sbin:"),
    ):
        assert real in program
        program = program.replace(real, here)

    done = subprocess.run(["sh", "-c", program], check=False, input=b"", capture_output=True)

    assert done.returncode != 0
    assert b"0 MiB are free, 101 MiB are needed" in done.stderr
    assert done.stdout == b""
    assert list((tmp_path / "snapshot").iterdir()) == []


# The data of a member, in a directory that stands for the machine; etcdutl and systemd are played.

PLAYED = {
    "systemctl": "exit 3\n",
    "getent": "exit 0\n",
    "chown": "exit 0\n",
    "install": """for last; do :; done; mkdir -p "$last"\n""",
    # Its own data go to DIRECTORY/member, as etcdutl makes them.
    "etcdutl": """while [ "$1" != --data-dir ]; do shift; done
mkdir -p "$2/member"; cp "$work/etcd.db" "$2/member/db" 2>/dev/null || echo restored >"$2/member/db"
[ -z "${KILLED:-}" ] || kill -9 $PPID\n""",
}


class Played:
    """A directory that stands for a machine."""

    def __init__(self, root):
        self.root, self.tools, self.data = root, root / "tools", root / "data"
        self.formed, self.marker = root / "formed", root / "restoring"
        play(self.tools, **PLAYED)
        (self.data / "member").mkdir(parents=True)
        (self.data / "member" / "db").write_text("old")

    def run(self, program, sent=b"", **environment):
        for real, played in (
            ("bin=/usr/local/bin", f"bin={self.tools}"),
            ("data=/var/lib/etcd", f"data={self.data}"),
            ("formed=/etc/etcd/formed", f"formed={self.formed}"),
            ("marker=/var/lib/clusterctl/restoring", f"marker={self.marker}"),
            ("state=/var/lib/clusterctl", f"state={self.root}"),
            ("PATH=/usr/local/sbin:", f"PATH={self.tools}:/usr/local/sbin:"),
        ):
            program = program.replace(real, played)
        return subprocess.run(
            ["sh", "-c", program],
            check=False,
            input=sent,
            capture_output=True,
            env={**os.environ, **environment},
        )

    def __call__(self, target=TARGET, *, sent=None, killed=False):
        program = etcd_programs.restore(
            cluster(), cluster().masters[0], cluster().masters, target, MANIFEST
        )
        sent = zstandard.compress(b"data") if sent is None else sent
        return self.run(program, sent, KILLED="1" if killed else "")

    def has_run(self):
        """Etcd has started with what was restored, and a write was acknowledged."""
        self.formed.touch()
        (self.data / "member" / "written").touch()

    def says(self, target=TARGET):
        return self.run(etcd_programs.brought(target)).stdout.decode().strip()


@pytest.fixture
def machine_(tmp_path):
    return Played(tmp_path)


def test_restored_data_take_the_place_of_the_old_ones_which_are_kept_beside(machine_):
    assert machine_().returncode == 0

    assert (machine_.data / "member" / "db").read_text() != "old"
    assert (machine_.data / "before-restore" / "db").read_text() == "old"
    assert (machine_.data / f"restored-{TARGET.id}").exists()


def test_a_machine_says_whether_it_has_the_restored_data(machine_):
    other = Target(MANIFEST.sha256, 5, ("m1",))

    assert machine_.says() == ""
    machine_()
    assert (machine_.says(), machine_.says(other)) == ("yes", "")
    machine_(other)
    assert (machine_.says(), machine_.says(other)) == ("", "yes")


def test_a_run_that_was_killed_is_finished_by_the_next_and_the_old_data_are_never_lost(machine_):
    assert machine_(killed=True).returncode != 0
    assert (machine_.data / "member" / "db").read_text() == "old"

    assert machine_().returncode == 0

    assert (machine_.data / "before-restore" / "db").read_text() == "old"


def test_another_target_replaces_what_was_restored_and_still_keeps_the_first_data(machine_):
    machine_()
    (machine_.data / "member" / "written").touch()

    assert machine_(Target(MANIFEST.sha256, 5, ("m1",))).returncode == 0

    assert not (machine_.data / "member" / "written").exists()
    assert (machine_.data / "before-restore" / "db").read_text() == "old"


def test_a_second_restore_moves_aside_the_data_that_ran_since_the_first(machine_):
    machine_()
    machine_.has_run()

    assert machine_(Target(MANIFEST.sha256, 5, ("m1",))).returncode == 0

    assert (machine_.data / "before-restore" / "written").exists()
    assert not machine_.formed.exists()


def read_by_recover(machine):
    """Which data `recover` takes from a machine."""
    play(machine.tools, etcdutl='shift 2; echo "$1"\n')
    for kept in ("member", "before-restore"):
        if (machine.data / kept).exists():
            (machine.data / kept / "snap").mkdir(exist_ok=True)
            (machine.data / kept / "snap" / "db").touch()
    said = machine.run(etcd_programs.revision()).stdout.decode().strip()
    return said.removeprefix(f"{machine.data}/").partition("/")[0]


def test_restored_data_that_never_ran_are_not_kept_as_the_machines_own(machine_):
    assert read_by_recover(machine_) == "member"
    play(machine_.tools, **PLAYED)
    machine_.formed.touch()
    machine_()
    assert read_by_recover(machine_) == "before-restore"


def test_writes_acknowledged_since_a_restore_are_what_a_second_recovery_takes(machine_):
    machine_()
    machine_.has_run()
    assert read_by_recover(machine_) == "member"


def test_between_the_two_renames_a_machine_has_what_it_had(machine_):
    play(
        machine_.tools, mv=f"""case $2 in *work*) kill -9 $PPID && exit ;; esac\nexec {MV} "$@"\n"""
    )
    assert machine_().returncode != 0
    assert not (machine_.data / "member").exists()
    machine_.formed.touch()  # even so
    assert read_by_recover(machine_) == "before-restore"


@pytest.mark.parametrize("line", range(1, 14))
def test_killed_at_any_step_and_run_again_the_newest_that_was_acknowledged_is_kept(machine_, line):
    """The second recovery of a cluster that ran after the first; each step is a program's start."""
    machine_()
    machine_.has_run()
    count = machine_.root / "count"
    for name in ("rm", "mv", "sync", "chown"):
        real = shutil.which(name)
        play(
            machine_.tools,
            **{
                name: f"""echo >>{count}
[ $(wc -l <{count}) -ne {line} ] || kill -9 $PPID
exec {real} "$@"\n"""
            },
        )
    play(machine_.tools, chown="exit 0\n")
    other = Target(MANIFEST.sha256, 5, ("m1",))

    machine_(other)
    kept = machine_.data / read_by_recover(machine_)
    assert (kept / "written").exists()
    play(machine_.tools, **PLAYED)
    for name in ("rm", "mv", "sync"):
        (machine_.tools / name).unlink()
    assert machine_(other).returncode == 0

    assert (machine_.data / "before-restore" / "written").exists()
    assert machine_.says(other) == "yes"


def test_leftovers_of_a_finished_restore_are_not_adopted_by_a_new_one(machine_):
    machine_()
    machine_.has_run()
    machine_.run(etcd_programs.release())  # and `clean` did not get there

    assert machine_.run(etcd_programs.stop("sha 1", ["etcd.service"])).returncode == 0

    assert machine_.marker.read_text() == "sha 1\n"
    assert machine_.says() == ""
    assert not (machine_.data / "before-restore").exists()


def test_data_that_a_resumed_restore_moved_aside_stay(machine_):
    machine_.run(etcd_programs.stop("sha 1", ["etcd.service"]))
    machine_()
    machine_.run(etcd_programs.stop("sha 1", ["etcd.service"]))

    assert machine_.says() == "yes"
    assert (machine_.data / "before-restore" / "db").read_text() == "old"


@pytest.mark.parametrize("sent", [b"", zstandard.compress(b"dat"), zstandard.compress(b"data")[:6]])
def test_data_that_do_not_arrive_whole_touch_nothing(machine_, sent):
    done = machine_(sent=sent)

    assert done.returncode != 0
    assert b"did not arrive whole" in done.stderr
    assert (machine_.data / "member" / "db").read_text() == "old"


def test_data_for_which_there_is_no_room_touch_nothing(machine_):
    play(machine_.tools, df=FULL)

    done = machine_()

    assert done.returncode != 0
    assert b"no room in" in done.stderr
    assert (machine_.data / "member" / "db").read_text() == "old"


@pytest.mark.parametrize(("size", "said"), [(1, ""), (1 << 60, "no room in ")])
def test_a_machine_says_whether_there_is_room_before_anything_is_brought(size, said):
    program = etcd_programs.room(MANIFEST.model_copy(update={"size": size}))
    done = subprocess.run(["sh", "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(said)
    assert bool(done.stdout) is bool(said)
