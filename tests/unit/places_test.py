"""The directories that the cluster will use: written, run from, and large enough."""

import os
import subprocess
from dataclasses import replace

import pytest

from provision.model import paths
from provision.model.observed import Place
from provision.observe import script
from provision.observe.parse import parse
from provision.observe.script import Query
from tests.unit.preflight_test import MASTER, OURS, WORKER, cluster, judge, only, seen

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the probe runs as root")
BIN = Place(paths.BIN, "/usr/local", "/usr/local", 9000, 90_000)
DATA = Place(paths.CONTAINERD_DATA, "/var/lib", "/", 20_000, 90_000)
ETCD = Place(paths.ETCD_DATA, "/var/lib/etcd", "/var/lib/etcd", 20_000, 90_000)


def test_a_machine_with_room_is_fit():
    assert judge(seen(places=(BIN, DATA, ETCD))) == []


@pytest.mark.parametrize(
    ("place", "fatal", "words", "hint"),
    [
        (
            replace(BIN, unwritable="Read-only file system"),
            True,
            "cannot write in /usr/local, for /usr/local/bin: Read-only file system",
            "mount -o remount,rw /usr/local;",
        ),
        (
            replace(BIN, unwritable="Operation not permitted"),
            True,
            "/usr/local/bin: Operation not permitted",
            "make /usr/local a directory",
        ),
        (
            replace(BIN, runs=False),
            True,
            "programs cannot run from /usr/local/bin: the file system /usr/local is mounted with",
            "mount -o remount,exec /usr/local;",
        ),
        (replace(DATA, runs=False), True, "programs cannot run from", "mount -o remount,exec /;"),
        (replace(DATA, free=300), True, "/ is full: 300 MiB", "free at least 500 MiB on /,"),
        (replace(DATA, free=900), False, "/ is nearly full: 900 MiB", "free at least 6000 MiB"),
        (replace(ETCD, free=20), True, "/var/lib/etcd is full: 20 MiB", "300 MiB"),
        (replace(ETCD, inodes=20), True, "has 20 free inodes", "remove files from /var/lib/etcd"),
    ],
)
def test_a_directory_that_will_not_do_is_found(place, fatal, words, hint):
    finding = only(judge(seen(places=(place,))))

    assert finding.fatal is fatal
    assert words in finding.what
    assert hint in finding.hint


def test_only_needs_of_the_machines_own_components_count():
    assert judge(seen(WORKER, places=(replace(ETCD, free=20),))) == []
    assert judge(seen(places=(replace(ETCD, runs=False),))) == []  # no program runs from there
    assert judge(seen(places=(replace(ETCD, inodes=None),))) == []


def test_needs_in_one_file_system_add_up():
    one = tuple(replace(place, mount="/", free=700) for place in (BIN, DATA, ETCD))

    assert (
        "/usr/local/bin, /var/lib/containerd, /var/lib/etcd" in only(judge(seen(places=one))).what
    )


def test_the_room_that_a_member_of_the_cluster_uses_is_not_asked_for_again():
    one = seen(places=(replace(ETCD, free=20),), whose=OURS)

    assert judge(replace(one, record={"etcd": ()})) == []


def test_check_tries_the_directories_of_the_components():
    places = script.query(cluster(MASTER, WORKER), MASTER, reachability=True).places

    assert {paths.BIN, paths.CNI_BIN, paths.ETCD_DATA, paths.CONTAINERD_DATA} < set(places)
    assert script.query(cluster(MASTER), MASTER).places == ()


def look(query, *before):
    """Probe in a mount namespace, after these commands."""
    program = " && ".join(("mount --make-rprivate /", *before, 'exec sh -c "$0"'))
    answer = subprocess.run(
        ["unshare", "--mount", "sh", "-c", program, query.program()],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        pytest.skip(f"no mount namespaces here: {answer.stderr.strip()}")
    return parse("here", answer.stdout, 0, 0).host.places


@as_root
@pytest.mark.parametrize(
    ("option", "wrong"),
    [("ro", {"unwritable": "Read-only file system"}), ("noexec", {"runs": False})],
)
def test_a_directory_is_tried_and_the_hint_repairs_it(tmp_path, monkeypatch, option, wrong):
    monkeypatch.setattr(paths, "RECORD", str(tmp_path / "none"))
    disk = tmp_path / "a disk"
    disk.mkdir()
    used = f"{disk}/local/bin"
    mount = f"mount -t tmpfs -o size=64m,nr_inodes=400,{option} none '{disk}'"
    query = Query("127.0.0.1", places=(used, str(tmp_path)))

    place, outside = look(query, mount)

    assert (place.path, place.there, place.mount) == (used, str(disk), str(disk))
    assert (place.free, 390 < place.inodes < 400) == (64, True)
    assert replace(place, **wrong) == place
    assert (outside.unwritable, outside.runs) == ("", True)
    finding = only(judge(seen(places=(replace(place, path=paths.BIN, free=90_000, inodes=None),))))
    repaired, _ = look(query, mount, finding.hint.split(";")[0])
    assert (repaired.unwritable, repaired.runs) == ("", True)
    assert [path.name for path in tmp_path.iterdir()] == ["a disk"]


@as_root
def test_a_machine_of_a_cluster_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORD", str(tmp_path / "record"))
    (tmp_path / "record").mkdir()
    disk = tmp_path / "disk"
    disk.mkdir()
    query = Query("127.0.0.1", places=(str(disk), "/proc/version/no"))

    place, none = look(query, f"mount -t tmpfs -o ro none {disk}")

    assert place.unwritable == "Read-only file system"
    assert none.unwritable == "Not a directory"
