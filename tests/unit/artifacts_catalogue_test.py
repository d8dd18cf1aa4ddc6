import re
from dataclasses import replace
from typing import get_args

import pytest
from pydantic import ValidationError

from provision.artifacts import pins, prepare, recipes
from provision.artifacts.catalogue import ARCHES, Catalogue, catalogue, require_checksums
from provision.artifacts.images import TABLE, pulled_by_digest, refs
from provision.artifacts.oci import split_reference
from provision.artifacts.recipes import RECIPES, buildable, plan
from provision.local.progress import Silent
from provision.model.errors import ArtifactError
from provision.model.settings.components import KUBERNETES_DEFAULT, ArtifactsSource

VERSIONS = catalogue().versions
BUILDABLE = ("1.37.1", "1.36.3", "1.35.4")


def test_the_default_version_of_kubernetes_is_in_the_catalogue():
    assert KUBERNETES_DEFAULT in catalogue().versions
    assert KUBERNETES_DEFAULT in buildable()


def test_every_patch_release_of_the_maintained_versions_up_to_the_newest_known_is_there():
    known = {
        *(f"1.37.{patch}" for patch in range(2)),
        *(f"1.36.{patch}" for patch in range(5)),
        *(f"1.35.{patch}" for patch in range(8)),
    }
    assert known <= set(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_component_that_machines_need_is_pinned_for_both_architectures(version):
    names = {
        *(f"kubernetes/{n}" for n in ("kube-apiserver", "kube-controller-manager", "kubectl")),
        *(f"kubernetes/{n}" for n in ("kube-scheduler", "kubelet", "kube-proxy")),
        *(f"etcd/{n}" for n in ("etcd", "etcdctl", "etcdutl")),
        *(f"containerd/{n}" for n in ("containerd", "containerd-shim-runc-v2", "ctr")),
        *(f"cni-plugins/{n}" for n in ("bridge", "loopback", "host-local", "portmap")),
        "runc/runc",
        "registry/registry",
        "age/age",
    }
    assert {(p.name, p.arch) for p in pins(version)} == {(n, a) for n in names for a in ARCHES}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_has_a_sha256_and_it_belongs_to_one_address_only(version):
    addresses: dict[str, str] = {}
    for pin in pins(version):
        assert re.fullmatch(r"[0-9a-f]{64}", pin.sha256)
        assert addresses.setdefault(pin.sha256, pin.url) == pin.url


@pytest.mark.parametrize("version", VERSIONS)
def test_addresses_are_https_and_name_the_version_and_architecture(version):
    for pin in pins(version):
        assert pin.url.startswith("https://")
        assert f"{pin.version}" in pin.url
        assert pin.arch in pin.url
        assert "{" not in pin.url + (pin.member or "")


def test_the_kubelet_comes_from_where_kubernetes_publishes_it():
    pin = catalogue().pins("1.36.3")["kubernetes/kubelet", "amd64"]
    assert pin.url == "https://dl.k8s.io/v1.36.3/bin/linux/amd64/kubelet"
    assert pin.member is None


def test_an_archive_gives_several_programs_under_one_checksum():
    known = catalogue().pins("1.36.3")
    bridge, portmap = (known[f"cni-plugins/{n}", "arm64"] for n in ("bridge", "portmap"))
    assert (bridge.url, bridge.sha256) == (portmap.url, portmap.sha256)
    assert (bridge.member, portmap.member) == ("bridge", "portmap")
    assert known["etcd/etcd", "amd64"].member == "etcd-v3.7.1-linux-amd64/etcd"


def test_a_file_without_a_checksum_is_refused_by_name_with_the_way_out():
    known = catalogue().pins("1.36.3")
    etcd = replace(known["etcd/etcd", "arm64"], sha256="")
    with pytest.raises(ArtifactError) as caught:
        require_checksums([etcd, known["runc/runc", "arm64"]])
    assert "etcd/etcd 3.7.1 arm64" in caught.value.message
    assert "runc" not in caught.value.message
    assert '"source": "build"' in caught.value.hint


def test_an_unknown_version_is_refused_with_those_that_are_known():
    with pytest.raises(ArtifactError, match="1.2.3") as caught:
        pins("1.2.3")
    assert "1.36.3" in caught.value.hint


def test_a_misspelled_field_in_the_file_is_found(tmp_path):
    path = tmp_path / "catalogue.yaml"
    path.write_text('sets: {}\nkubernetes: {}\nrunc: {"1": {url: x, sha265: {}}}\n')
    with pytest.raises(ValidationError, match="sha265"):
        Catalogue.read(path)


@pytest.mark.parametrize("version", BUILDABLE)
def test_built_artifacts_have_the_catalogues_version(version):
    for pin in pins(version):
        assert plan(pin.name, pin.arch, version).version == pin.version


@pytest.mark.parametrize("name", ["coredns", "metrics-server", "local-path-provisioner"])
def test_an_images_tag_is_the_version_that_is_built(name):
    _, tag = split_reference(refs()[name])
    assert plan(f"{name}/{name}", "amd64", "").version == tag.removeprefix("v")


def test_a_digest_is_added_only_where_nodes_certainly_pull_upstreams_images():
    assert refs()["coredns"] == "registry.k8s.io/coredns/coredns:v1.14.6"
    assert re.fullmatch(
        r"registry.k8s.io/.*:v1\.14\.6@sha256:[0-9a-f]{64}", refs(by_digest=True)["coredns"]
    )
    assert {
        s
        for s in get_args(ArtifactsSource.model_fields["source"].annotation)
        if pulled_by_digest(s)
    } == {"official", "mirror"}


@pytest.mark.parametrize("image", [i for i in TABLE.values() if i.digest], ids=str)
def test_a_digest_is_that_of_a_sha256(image):
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image.digest)


def test_every_image_names_programs_that_have_a_recipe():
    for image in TABLE.values():
        for program in image.programs.values():
            component, _, name = program.partition("/")
            assert name in RECIPES[component].packages


def test_a_version_without_pinned_modules_cannot_be_built_and_the_hint_has_those_that_can():
    with pytest.raises(ArtifactError, match=r"1\.34\.0") as caught:
        plan("kubernetes/kubelet", "amd64", "1.34.0")
    assert caught.value.hint == f"versions that can be built: {', '.join(BUILDABLE)}"


def test_a_recipe_without_pinned_modules_is_refused_and_the_hint_makes_them(monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "MODULES", tmp_path)
    with pytest.raises(ArtifactError, match=r"runc/runc cannot be built.*runc/go\.mod") as caught:
        plan("runc/runc", "amd64", "1.36.3")
    assert "go get -tool github.com/opencontainers/runc@VERSION" in caught.value.hint


def test_versions_that_can_be_built_are_those_with_pinned_modules(tmp_path, monkeypatch):
    monkeypatch.setattr("provision.artifacts.recipes.MODULES", tmp_path)
    for name in ("kubernetes-1.9.10", "kubernetes-1.36.3", "etcd"):
        (tmp_path / name).mkdir()
    assert buildable() == ("1.36.3", "1.9.10")


def test_a_program_without_a_recipe_is_refused_with_those_that_have_one():
    with pytest.raises(ArtifactError, match="etcd has no program 'etcdx'") as caught:
        plan("etcd/etcdx", "amd64", "1.36.3")
    assert caught.value.hint == "programs of etcd: etcd, etcdctl, etcdutl"
    with pytest.raises(ArtifactError, match="flannel is unknown") as caught:
        plan("flannel/flanneld", "amd64", "1.36.3")
    assert "coredns" in caught.value.hint


def test_an_architecture_or_artifact_that_the_catalogue_lacks_is_refused_by_its_own_reason():
    official = ArtifactsSource(source="official")
    with pytest.raises(ArtifactError, match="for the architecture riscv64") as caught:
        prepare(official, "1.36.3", [("runc/runc", "riscv64")], Silent())
    assert caught.value.hint == "it has: amd64, arm64"
    with pytest.raises(
        ArtifactError, match="Kubernetes 1.36.3 does not have flannel/flanneld"
    ) as e:
        prepare(official, "1.36.3", [("flannel/flanneld", "amd64")], Silent())
    assert "runc/runc" in e.value.hint
    assert "arm64" not in e.value.hint


@pytest.mark.parametrize("checksum", ["ab" * 31, "AB" * 32, "xy" * 32, ""])
def test_a_checksum_that_is_not_64_hex_digits_is_refused(checksum):
    text = f"sets: {{}}\nkubernetes: {{}}\nrunc: {{'1': {{url: x, sha256: {{runc: {{amd64: '{checksum}'}}}}}}}}\n"
    with pytest.raises(ValidationError, match="sha256"):
        Catalogue.parse(text)


def test_a_changed_pin_or_recipe_is_another_build_and_the_same_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("provision.artifacts.recipes.MODULES", tmp_path)
    (tmp_path / "pause").mkdir()
    source = tmp_path / "pause" / "go.mod"
    source.write_text("module pause\n")
    first = plan("pause/pause", "amd64", "").directory
    assert plan("pause/pause", "amd64", "").directory == first
    source.write_text("module pause\n\ngo 1.26.0\n")
    assert plan("pause/pause", "amd64", "").directory != first
