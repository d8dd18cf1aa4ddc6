import hashlib
import io
import json
import subprocess
import tarfile

import pytest
import zstandard

from provision.artifacts import compressed, open_bundle, write_bundle
from provision.artifacts.bundle import choose
from provision.artifacts.model import ArtifactSet, Ready
from provision.model.errors import ArtifactError


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    home = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "clusterctl"


@pytest.fixture
def artifacts(tmp_path):
    items = {}
    for name, version in (
        ("kubernetes/kubelet", "1.36.3"),
        ("runc/runc", "1.5.2"),
        ("images", "x"),
    ):
        local = tmp_path / name.replace("/", "_")
        local.write_bytes(name.encode() * 5000)
        pin = hashlib.sha256(local.read_bytes()).hexdigest()
        items[name, "amd64"] = Ready(name, version, "amd64", pin, local=local)
    return ArtifactSet("build", items)


@pytest.fixture
def bundle(artifacts, tmp_path):
    return write_bundle(artifacts, tmp_path / "bundle.tar.zst")


def rewrite(bundle, change):
    """Unpack, let `change` alter the members in place, pack again."""
    plain = zstandard.ZstdDecompressor().stream_reader(bundle.read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    members = change(members) or members
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    bundle.write_bytes(zstandard.ZstdCompressor().compress(out.getvalue()))


def kept(cache_home):
    return [p for p in cache_home.rglob("*") if p.is_file() and not p.name.endswith(".lock")]


def test_a_bundle_gives_back_what_went_in(artifacts, bundle):
    opened = open_bundle(bundle)
    assert opened.source == "bundle"
    assert opened.items.keys() == artifacts.items.keys()
    for key, ready in opened.items.items():
        given = artifacts.items[key]
        assert (ready.version, ready.pin) == (given.version, given.pin)
        assert ready.local.read_bytes() == given.local.read_bytes()
        assert ready.local != given.local


def test_a_bundle_can_be_read_with_ordinary_tools(bundle, tmp_path):
    plain = tmp_path / "plain.tar"
    with bundle.open("rb") as file, plain.open("wb") as out:
        zstandard.ZstdDecompressor().copy_stream(file, out)
    names = subprocess.check_output(["tar", "-tf", plain], text=True).splitlines()
    assert names[0] == "manifest.json"
    assert "amd64/kubernetes/kubelet" in names


def test_a_bundle_is_unpacked_once(bundle):
    first = open_bundle(bundle).get("runc/runc", "amd64").local
    inode = first.stat().st_ino
    assert open_bundle(bundle).get("runc/runc", "amd64").local.stat().st_ino == inode
    first.write_bytes(b"altered in the cache")
    again = open_bundle(bundle).get("runc/runc", "amd64")
    assert hashlib.sha256(again.local.read_bytes()).hexdigest() == again.pin


def test_a_file_that_was_altered_is_named_with_both_hashes_and_nothing_is_kept(bundle, cache_home):
    def change(members):
        members["amd64/runc/runc"] = b"evil" + members["amd64/runc/runc"][4:]

    rewrite(bundle, change)
    with pytest.raises(ArtifactError, match="amd64/runc/runc has the wrong hash") as caught:
        open_bundle(bundle)
    expected = hashlib.sha256(b"runc/runc" * 5000).hexdigest()
    got = hashlib.sha256(b"evil" + (b"runc/runc" * 5000)[4:]).hexdigest()
    assert expected in caught.value.message
    assert got in caught.value.message
    assert kept(cache_home) == []


@pytest.mark.parametrize("part", [0, 10, 100, 200])
def test_a_bundle_that_is_cut_off_is_refused_and_nothing_is_kept(bundle, cache_home, part):
    content = bundle.read_bytes()
    bundle.write_bytes(content[: min(part, len(content) - 40)])
    with pytest.raises(ArtifactError, match="not a whole bundle"):
        open_bundle(bundle)
    assert kept(cache_home) == []


def test_a_missing_file_is_named(bundle):
    rewrite(bundle, lambda members: {k: v for k, v in members.items() if "kubelet" not in k})
    with pytest.raises(ArtifactError, match="amd64/kubernetes/kubelet"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "a/../b", "a/b/c"])
def test_a_manifest_cannot_lead_out_of_the_cache(bundle, name, cache_home):
    def change(members):
        manifest = json.loads(members["manifest.json"])
        manifest["items"][0]["name"] = name
        members["manifest.json"] = json.dumps(manifest).encode()

    rewrite(bundle, change)
    with pytest.raises(ArtifactError, match="not a whole bundle"):
        open_bundle(bundle)
    assert kept(cache_home) == []


def test_a_file_that_is_no_bundle_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("hello")
    with pytest.raises(ArtifactError, match="not a whole bundle"):
        open_bundle(path)
    with pytest.raises(ArtifactError, match="there is no bundle"):
        open_bundle(tmp_path / "none")


def test_a_cluster_takes_what_it_needs_from_a_bundle(bundle):
    chosen = choose(open_bundle(bundle), "1.36.3", [("runc/runc", "amd64"), ("images", "amd64")])
    assert set(chosen.items) == {("runc/runc", "amd64"), ("images", "amd64")}


def test_artifacts_missing_from_the_bundle_are_listed(bundle):
    wanted = [("runc/runc", "arm64"), ("etcd/etcd", "amd64")]
    with pytest.raises(ArtifactError, match="runc/runc arm64, etcd/etcd amd64") as caught:
        choose(open_bundle(bundle), "1.36.3", wanted)
    assert caught.value.hint.endswith("INVENTORY FILE --arch amd64 --arch arm64")


def test_a_bundle_of_another_version_is_refused(bundle):
    with pytest.raises(ArtifactError, match=r"1\.36\.3, but the inventory has 1\.35\.4"):
        choose(open_bundle(bundle), "1.35.4", [("kubernetes/kubelet", "amd64")])


def test_the_compressed_twin_is_made_once_and_unpacks_to_the_same(artifacts):
    ready = artifacts.get("images", "amd64")
    twin = compressed(ready)
    assert twin.stat().st_size < ready.local.stat().st_size
    assert zstandard.decompress(twin.read_bytes()) == ready.local.read_bytes()
    stamp = twin.stat().st_mtime_ns
    assert compressed(ready) == twin
    assert twin.stat().st_mtime_ns == stamp
