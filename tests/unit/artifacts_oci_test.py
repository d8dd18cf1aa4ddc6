import gzip
import hashlib
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.artifacts import layout_from_archive
from provision.artifacts.oci import (
    LAYER,
    MANIFEST,
    File,
    image,
    split_reference,
    write_layer,
    write_storage,
)
from provision.model import paths
from provision.model.errors import ArtifactError


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def tar_of(files, path, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def read(path):
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}


def layer_bytes(text):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return out.getvalue()


def oci_archive(path, name="docker.io/library/app:1", text=b"hello", damage=False, mode="w"):
    """As `podman save --format oci-archive` lays it out."""
    layer = layer_bytes(text)
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": digest(layer), "size": len(layer)}],
        }
    ).encode()
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "digest": digest(manifest),
                "size": len(manifest),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        ],
    }
    blobs = {
        f"blobs/sha256/{digest(content)[7:]}": content for content in (layer, config, manifest)
    }
    if damage:
        blobs[f"blobs/sha256/{digest(layer)[7:]}"] = layer[:-1] + b"x"
    files = {"oci-layout": b"{}", "index.json": json.dumps(index).encode(), **blobs}
    return tar_of(files, path, mode), digest(manifest), digest(layer)


def docker_archive(path, images, damage=False):
    """As `podman save` and older `docker save` lay it out. images: name -> text of the layer."""
    files, entries = {}, []
    for name, text in images.items():
        layer = layer_bytes(text)
        config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}).encode()
        files[f"{digest(layer)[7:]}.tar"] = layer if not damage else layer[:-1] + b"x"
        files[f"{digest(config)[7:]}.json"] = config
        entries.append(
            {
                "Config": f"{digest(config)[7:]}.json",
                "RepoTags": [name],
                "Layers": [f"{digest(layer)[7:]}.tar"],
            }
        )
    files["manifest.json"] = json.dumps(entries).encode()
    return tar_of(files, path)


def manifest_of(stored, repository, tag):
    """What a registry would serve from this storage."""
    tags = f"{paths.REGISTRY_STORAGE}/repositories/{repository}/_manifests/tags/{tag}"
    link = stored[f"{tags}/current/link"].decode()
    hexadecimal = link.removeprefix("sha256:")
    assert stored[f"{tags}/index/sha256/{hexadecimal}/link"].decode() == link
    content = stored[f"{paths.REGISTRY_STORAGE}/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"]
    assert digest(content) == link
    manifest = json.loads(content)
    for part in (manifest["config"], *manifest["layers"]):
        name = part["digest"].removeprefix("sha256:")
        home = f"{paths.REGISTRY_STORAGE}/repositories/{repository}/_layers/sha256/{name}/link"
        assert stored[home].decode() == part["digest"]
        blob = stored[f"{paths.REGISTRY_STORAGE}/blobs/sha256/{name[:2]}/{name}/data"]
        assert (digest(blob), len(blob)) == (part["digest"], part["size"])
    return link, manifest


def test_the_same_files_give_the_same_layer_in_any_order(tmp_path):
    (tmp_path / "program").write_bytes(b"\x7fELF")
    files = [
        File("/usr/bin/program", tmp_path / "program"),
        File("bin/sh", "busybox"),
        File("tmp", None, 0o1777),
        File("etc/passwd", b"root", 0o644),
    ]
    first = write_layer(files, tmp_path / "a")
    (tmp_path / "program").touch()
    second = write_layer(reversed(files), tmp_path / "b")
    assert first.digest == second.digest
    with tarfile.open(tmp_path / "a") as tar:
        entries = {m.name: (m.type, m.mode, m.uid, m.mtime, m.linkname) for m in tar}
    assert list(entries) == sorted(entries)
    assert entries["usr/bin"] == (tarfile.DIRTYPE, 0o755, 0, 0, "")
    assert entries["usr/bin/program"] == (tarfile.REGTYPE, 0o755, 0, 0, "")
    assert entries["tmp"][1] == 0o1777
    assert entries["bin/sh"][4] == "busybox"


def test_the_storage_serves_each_image_under_its_upstream_name_and_the_same_bytes_again(tmp_path):
    layer = write_layer([File("pause", b"program")], tmp_path / "layer")
    made = image("arm64", [layer], {"Entrypoint": ["/pause"], "User": "65535:65535"})
    images = {"registry.k8s.io/pause:3.10.2": made, "docker.io/library/busybox:1.37": made}
    one = write_storage(images, tmp_path / "one.tar")
    two = write_storage(dict(reversed(images.items())), tmp_path / "two.tar")
    assert one.read_bytes() == two.read_bytes()
    stored = read(one)
    _, manifest = manifest_of(stored, "registry.k8s.io/pause", "3.10.2")
    manifest_of(stored, "docker.io/library/busybox", "1.37")
    hexadecimal = manifest["config"]["digest"].removeprefix("sha256:")
    config = json.loads(
        stored[f"{paths.REGISTRY_STORAGE}/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"]
    )
    assert config["architecture"] == "arm64"
    assert config["config"]["User"] == "65535:65535"
    assert config["rootfs"]["diff_ids"] == [layer.digest]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("busybox", ("docker.io/library/busybox", "latest")),
        ("busybox:1.37", ("docker.io/library/busybox", "1.37")),
        ("rancher/local-path-provisioner:v0.0.30",
         ("docker.io/rancher/local-path-provisioner", "v0.0.30")),
        ("registry.k8s.io/coredns/coredns:v1.14.6",
         ("registry.k8s.io/coredns/coredns", "v1.14.6")),
        ("localhost/app:dev", ("localhost/app", "dev")),
    ],
)  # fmt: skip
def test_a_reference_is_a_repository_and_a_tag(reference, expected):
    assert split_reference(reference) == expected


@pytest.mark.parametrize(
    "reference",
    ["", "App:1", "a b:1", "registry.example.com:5000/app:1", "app@sha256:" + "0" * 64, "../x:1",
     "a/../../etc:1", "app:", "app:a/b", "/app:1"],
)  # fmt: skip
def test_a_reference_that_no_registry_can_store_is_refused(reference):
    with pytest.raises(ArtifactError, match="name of an image"):
        split_reference(reference)


@given(st.text(max_size=60))
def test_no_reference_leads_outside_of_the_storage(reference):
    try:
        repository, tag = split_reference(reference)
    except ArtifactError:
        return
    assert ".." not in f"{repository}/{tag}".split("/")
    assert not repository.startswith("/")
    assert "/" not in tag


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_oci_archive_becomes_storage_with_the_same_digests(tmp_path, mode):
    archive, manifest, layer = oci_archive(tmp_path / "in.tar", mode=mode)
    out = layout_from_archive(archive, "registry.example.com/team/app:2", tmp_path / "out.tar")
    link, found = manifest_of(read(out), "registry.example.com/team/app", "2")
    assert link == manifest
    assert found["layers"][0]["digest"] == layer
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.tar", "out.tar"]


def test_a_docker_archive_becomes_an_image_of_the_same_layers(tmp_path):
    archive = docker_archive(tmp_path / "in.tar", {"localhost/app:dev": b"hello"})
    out = layout_from_archive(archive, "localhost/app:dev", tmp_path / "out.tar")
    _, manifest = manifest_of(read(out), "localhost/app", "dev")
    assert manifest["mediaType"] == MANIFEST
    assert manifest["layers"][0]["digest"] == digest(layer_bytes(b"hello"))


def test_the_named_image_of_several_is_used(tmp_path):
    archive = docker_archive(tmp_path / "in.tar", {"app:1": b"one", "app:2": b"two"})
    out = layout_from_archive(archive, "docker.io/library/app:2", tmp_path / "out.tar")
    _, manifest = manifest_of(read(out), "docker.io/library/app", "2")
    assert manifest["layers"][0]["digest"] == digest(layer_bytes(b"two"))
    with pytest.raises(ArtifactError, match="app:1, app:2"):
        layout_from_archive(archive, "app:3", tmp_path / "none.tar")
    assert not (tmp_path / "none.tar").exists()


def test_an_index_is_kept_with_the_platforms_that_are_there(tmp_path):
    archive, manifest, _ = oci_archive(tmp_path / "plain.tar")
    files = read(archive)
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"digest": manifest}, {"digest": "sha256:" + "0" * 64}],
        }
    ).encode()
    files[f"blobs/sha256/{digest(index)[7:]}"] = index
    files["index.json"] = json.dumps({"manifests": [{"digest": digest(index)}]}).encode()
    nested = tar_of(files, tmp_path / "nested.tar")
    stored = read(layout_from_archive(nested, "app:1", tmp_path / "out.tar"))
    home = f"{paths.REGISTRY_STORAGE}/repositories/docker.io/library/app/_manifests"
    assert stored[f"{home}/tags/1/current/link"].decode() == digest(index)
    assert stored[f"{home}/revisions/sha256/{manifest[7:]}/link"].decode() == manifest


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_a_damaged_layer_is_refused_with_both_hashes(tmp_path, kind):
    if kind == "oci":
        archive, _, _ = oci_archive(tmp_path / "in.tar", damage=True)
    else:
        archive = docker_archive(tmp_path / "in.tar", {"app:1": b"hello"}, damage=True)
    with pytest.raises(ArtifactError, match=r"expected sha256:\w{64}, got sha256:\w{64}"):
        layout_from_archive(archive, "app:1", tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive", gzip.compress(b"neither"), gzip.compress(b"x" * 9000)[:-9]],
    ids=["empty", "text", "gzip", "cut gzip"],
)
def test_a_file_that_is_no_image_archive_is_refused(tmp_path, content):
    archive = tmp_path / "in.tar"
    archive.write_bytes(content)
    with pytest.raises(ArtifactError, match="not an image archive") as caught:
        layout_from_archive(archive, "app:1", tmp_path / "out.tar")
    assert "podman save" in caught.value.hint


def test_an_archive_that_is_cut_off_is_refused(tmp_path):
    archive, _, _ = oci_archive(tmp_path / "in.tar")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(ArtifactError):
        layout_from_archive(archive, "app:1", tmp_path / "out.tar")


def test_a_missing_archive_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="there is no file"):
        layout_from_archive(tmp_path / "none.tar", "app:1", tmp_path / "out.tar")
