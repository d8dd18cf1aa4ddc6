"""What is read from a snapshot, and what is refused."""

import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime, timedelta

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.commands.etcd import snapshot_file
from provision.model.errors import RefusedError, TrustError
from provision.pki.trust import SA_KEY
from tests.world import trust

DATABASE = bytes(range(256)) * 4000


def manifest(**changes):
    return {
        "format": 1,
        "cluster": "demo",
        "fingerprint": trust().fingerprint,
        "machine": "m2",
        "created": "2026-11-21T07:45:00Z",
        "kubernetes": "1.36.3",
        "etcd": "3.6.16",
        "revision": 1234,
        "keys": 321,
        "size": len(DATABASE),
        "sha256": hashlib.sha256(DATABASE).hexdigest(),
    } | changes


def packed(path, *, says=None, without=(), database=DATABASE):
    members = {"manifest.json": json.dumps(says or manifest()).encode(), "inventory.py": b"x = 1\n"}
    members |= {name.removeprefix("/"): f.content for name, f in trust().files().items()}
    members["etcd.db"] = database
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in members.items():
            if name in without:
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    path.write_bytes(zstandard.ZstdCompressor().compress(raw.getvalue()))
    return path


def test_a_snapshot_gives_back_all_that_it_holds(tmp_path):
    opened = snapshot_file.unpack(packed(tmp_path / "plain"), tmp_path, "FILE")

    assert opened.manifest.keys == 321
    assert opened.manifest.created == datetime(2026, 11, 21, 7, 45, tzinfo=UTC)
    assert opened.trust == trust()
    assert opened.inventory == "x = 1\n"
    assert opened.database.read_bytes() == DATABASE


def test_only_the_owner_can_read_the_unpacked_database_and_keys(tmp_path):
    opened = snapshot_file.unpack(packed(tmp_path / "plain"), tmp_path, "FILE")

    assert opened.database.stat().st_mode & 0o077 == 0
    assert trust().encryption_key not in repr(opened)


@settings(max_examples=30, deadline=None)
@given(st.floats(min_value=0, max_value=0.999))
def test_wherever_it_is_cut_off_it_is_refused(tmp_path_factory, part):
    directory = tmp_path_factory.mktemp("cut")
    whole = packed(directory / "plain").read_bytes()
    (directory / "plain").write_bytes(whole[: int(len(whole) * part)])

    with pytest.raises((RefusedError, TrustError)):
        snapshot_file.unpack(directory / "plain", directory, "FILE")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"without": ("manifest.json",)}, "it has no manifest"),
        ({"without": ("etcd.db",)}, "is not that of the manifest"),
        ({"database": DATABASE[:-1] + b"x"}, "is not that of the manifest"),
        ({"says": {"format": 1}}, "manifest.json: cluster"),
        ({"says": manifest(format=2)}, "manifest.json: format"),
        ({"says": manifest(revision="many")}, "manifest.json: revision"),
    ],
)
def test_an_incomplete_snapshot_is_refused_with_its_name(tmp_path, file, said):
    with pytest.raises(RefusedError, match=said) as refusal:
        snapshot_file.unpack(packed(tmp_path / "plain", **file), tmp_path, "FILE")
    assert "FILE" in refusal.value.message
    assert refusal.value.hint


def test_keys_that_are_missing_are_named(tmp_path):
    path = packed(tmp_path / "plain", without=(SA_KEY.removeprefix("/"),))

    with pytest.raises(TrustError, match="sa.key"):
        snapshot_file.unpack(path, tmp_path, "FILE")


def test_names_sort_as_the_times_of_the_snapshots_do():
    now = datetime(2026, 11, 21, 23, 59, tzinfo=UTC)
    names = [snapshot_file.name("demo", now + timedelta(hours=9 * n), "m1") for n in range(50)]

    assert names == sorted(names)
    assert names[0] == "demo-20261121T235900Z-m1.tar.zst.age"


@pytest.mark.parametrize("other", ["demo-2", "my-demo", "dem"])
def test_a_snapshot_is_known_by_its_name_and_is_not_another_clusters(other):
    when = datetime(2026, 11, 21, 7, 45, tzinfo=UTC)

    assert snapshot_file.is_of("demo", snapshot_file.name("demo", when, "m1.example"))
    assert not snapshot_file.is_of("demo", snapshot_file.name(other, when, "m1"))
    assert not snapshot_file.is_of("demo", "notes.txt")
    assert not snapshot_file.is_of("demo", f"x/{snapshot_file.name('demo', when, 'm1')}")
