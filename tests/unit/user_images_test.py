"""The operator's own images: found in a registry's storage, compared, copied."""

import subprocess
import tarfile
from dataclasses import replace

import pytest

from provision.apply.user_images import copy_images, sending, storing
from provision.artifacts import images
from provision.artifacts.oci import Blob, image, write_storage
from provision.cli.views.status import collect
from provision.model import paths
from provision.model.errors import PhaseError
from provision.model.observed import Observed
from provision.observe.parse import parse
from provision.observe.script import Query
from provision.plan.user_images import UserImage, image_problems, missing_images
from tests.world import converged, plan_of

APP, TEAM = "registry.example.com/app:1", "registry.example.com/app/team:2.0"
OURS = images.refs()["pause"]


def stored(text):
    return image("amd64", [Blob.of(text.encode())], {})


def registry(root, **of):
    """A registry's storage with these images, as `images push` writes it."""
    root.mkdir()
    tar = write_storage(of["of"], root.parent / f"{root.name}.tar")
    with tarfile.open(tar) as archive:
        archive.extractall(root, filter="data")
    return root


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def seen(root, monkeypatch):
    monkeypatch.setattr(paths, "REGISTRY", str(root))
    program = Query("192.0.2.11").program()
    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=True)
    return parse("m1", done.stdout, 0, 0).user_images


def test_the_look_lists_the_images_that_clusterctl_did_not_bring(tmp_path, monkeypatch):
    one, two = stored("one"), stored("two")
    root = registry(tmp_path / "m1", of={APP: one, TEAM: two, OURS: stored("ours")})

    assert seen(root, monkeypatch) == {
        APP: one.manifests[0].digest,
        TEAM: two.manifests[0].digest,
    }
    assert seen(tmp_path / "none", monkeypatch) == {}


def test_an_image_is_copied_whole_and_no_other_is(tmp_path):
    source = registry(tmp_path / "m1", of={APP: stored("one"), TEAM: stored("two")})
    only = registry(tmp_path / "only", of={APP: stored("one")})
    target = tmp_path / "m2"
    tar = tmp_path / "sent.tar"

    with tar.open("wb") as file:
        subprocess.run(["sh", "-c", sending([APP], str(source))], stdout=file, check=True)
    with tar.open("rb") as file:
        subprocess.run(["sh", "-c", storing(str(target))], stdin=file, check=True)

    assert files(target) == files(only)
    with tarfile.open(tar) as archive:
        names = archive.getnames()
    first = next(n for n, name in enumerate(names) if "/tags/" in name)
    assert all("/tags/" in name for name in names[first:])


def with_images(observed, **of):
    return {
        name: replace(view, user_images=of[name]) if name in of else view
        for name, view in observed.items()
    }


def test_each_master_gets_the_images_that_another_has():
    cluster, observed = converged()
    there = with_images(observed, m1={APP: "sha256:a"}, m3={APP: "sha256:a", TEAM: "sha256:b"})

    plan = plan_of(cluster, there)

    assert {name: m.user_images for name, m in plan.machines.items() if m.user_images} == {
        "m1": (UserImage(TEAM, "m3"),),
        "m2": (UserImage(TEAM, "m3"), UserImage(APP, "m1")),
    }
    assert not plan.empty
    problems = collect(cluster, there)["problems"]
    assert f"m1: its registry lacks {TEAM}: clusterctl up {cluster.inventory}" in problems


def test_a_master_that_does_not_answer_neither_gets_nor_gives_images():
    cluster, observed = converged()
    there = with_images(observed, m1={APP: "sha256:a"})
    there["m1"] = Observed("m1", error="off", off=True)
    assert missing_images(cluster, there) == {}


def test_the_same_images_everywhere_are_nothing_to_do():
    cluster, observed = converged()
    same = {APP: "sha256:a"}
    there = with_images(observed, m1=same, m2=same, m3=same)
    assert missing_images(cluster, there) == {}
    assert image_problems(cluster, there) == ()


def test_different_images_of_a_name_are_a_problem_and_are_not_copied():
    cluster, observed = converged()
    there = with_images(observed, m1={APP: "sha256:a"}, m2={APP: "sha256:b"}, m3={APP: "sha256:a"})

    assert missing_images(cluster, there) == {}
    (problem,) = image_problems(cluster, there)
    assert f"clusterctl images push {cluster.inventory} {APP}" in problem
    assert problem in collect(cluster, there)["problems"]


class Engine:
    """An engine that notes what is sent to whom."""

    def __init__(self, fails=()):
        self.cluster, _ = converged()
        self.done, self.fails = [], fails

    def receive(self, machine, command, sink):
        self.done.append(("from", machine.name))
        sink(b"tar")
        return (1, "disk error") if machine.name in self.fails else (0, "")

    def stream(self, machine, command, source):
        self.done.append(("to", machine.name, source.read_bytes()))
        return (1, "", "no space") if machine.name in self.fails else (0, "", "")


MISSING = {"m2": (UserImage(APP, "m1"),), "m3": (UserImage(APP, "m1"),)}


def test_masters_that_lack_the_same_images_get_them_from_one_reading():
    engine = Engine()
    copy_images("artifacts", engine, MISSING)
    assert engine.done == [("from", "m1"), ("to", "m2", b"tar"), ("to", "m3", b"tar")]


@pytest.mark.parametrize(("machine", "cause"), [("m1", "disk error"), ("m3", "no space")])
def test_a_master_that_cannot_send_or_store_them_is_named(machine, cause):
    with pytest.raises(PhaseError) as failed:
        copy_images("artifacts", Engine(fails=(machine,)), MISSING)
    assert [(f.machine, f.cause) for f in failed.value.failures] == [(machine, cause)]
