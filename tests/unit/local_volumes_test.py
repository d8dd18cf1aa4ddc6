"""Volumes on the disk of a machine that leaves."""

import subprocess
from pathlib import Path

import pytest

from provision.apply.local_volumes import LocalVolume, deletion, still_claimed, volumes_of
from provision.cli.views import summaries

KUBECTL = "/usr/local/bin/kubectl"


def on(*terms):
    return {"required": {"nodeSelectorTerms": list(terms)}}


def expression(*values, key="kubernetes.io/hostname", operator="In"):
    return {"key": key, "operator": operator, "values": list(values)}


def volume(affinity=None, *, claim="data", name="pvc-1"):
    ref = {"claimRef": {"namespace": "default", "name": claim}} if claim else {}
    return {"metadata": {"name": name}, "spec": {**ref, "nodeAffinity": affinity or {}}}


def pod(name, *volumes, phase="Running"):
    metadata = {"name": name, "namespace": "default"}
    spec = {"volumes": list(volumes)}
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": phase}}


def claimed(name):
    return {"name": "v", "persistentVolumeClaim": {"claimName": name}}


HERE = on({"matchExpressions": [expression("w1")]})


@pytest.mark.parametrize(
    ("affinity", "bound"),
    [
        (HERE, True),
        (on({"matchFields": [expression("w1", key="metadata.name")]}), True),
        (on({"matchExpressions": [expression("ssd", key="disk"), expression("w1")]}), True),
        (
            on({"matchExpressions": [expression("w1")]}, {"matchExpressions": [expression("w1")]}),
            True,
        ),
        (
            on({"matchExpressions": [expression("w1")]}, {"matchExpressions": [expression("w2")]}),
            False,
        ),
        (on({"matchExpressions": [expression("w1", "w2")]}), False),
        (on({"matchExpressions": [expression("w1", operator="NotIn")]}), False),
        (on({"matchExpressions": [expression("w1", key="zone")]}), False),
        (on({"matchExpressions": [expression("w10")]}), False),
        ({}, False),
    ],
)
def test_a_volume_is_on_the_machine_if_its_affinity_allows_no_other(affinity, bound):
    assert bool(volumes_of("w1", [volume(affinity)], [])) is bound


def test_a_volume_names_its_claim_and_the_pods_that_use_it():
    pods = [
        pod("db-0", claimed("data")),
        pod("web", claimed("other")),
        pod("done", claimed("data"), phase="Succeeded"),
    ]
    (found,) = volumes_of("w1", [volume(HERE)], pods)

    assert found == LocalVolume("pvc-1", "default/data", ("default/db-0",))
    assert str(found) == "pvc-1 (claim default/data, pods default/db-0)"


def test_an_ephemeral_volume_has_the_claim_of_its_pod():
    pods = [pod("job", {"name": "scratch", "ephemeral": {}})]
    (found,) = volumes_of("w1", [volume(HERE, claim="job-scratch")], pods)
    assert found.pods == ("default/job",)


def test_a_volume_without_a_claim_is_named_too():
    (found,) = volumes_of("w1", [volume(HERE, claim="")], [])
    assert str(found) == "pvc-1 (not claimed)"


def deleted(directory: Path, answer: str):
    """The calls of the program, with a kubectl that answers a patch in this way."""
    fake = directory / "kubectl"
    fake.write_text(
        f'#!/bin/sh\necho "$@" >>{directory}/calls\ncase $* in *patch*) {answer} ;; esac\n'
    )
    fake.chmod(0o755)
    program = deletion([LocalVolume("pvc-1", "default/data"), LocalVolume("pvc-2")])
    text = program.replace(KUBECTL, str(fake))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False)
    calls = (directory / "calls").read_text().splitlines()
    return done, [call.partition(".conf ")[2] for call in calls]


def test_volumes_are_deleted_with_their_finalizers_and_claims_are_not(tmp_path):
    done, calls = deleted(tmp_path, ":")

    assert done.returncode == 0, done.stderr
    assert calls == [
        line
        for name in ("pvc-1", "pvc-2")
        for line in (
            f"delete persistentvolume {name} --ignore-not-found --wait=false",
            f'patch persistentvolume {name} --type=merge -p {{"metadata": {{"finalizers": null}}}}',
        )
    ]


def test_a_volume_without_finalizers_is_gone_before_they_are_removed(tmp_path):
    gone = "echo 'Error from server (NotFound): not found' >&2; exit 1"
    assert deleted(tmp_path, gone)[0].returncode == 0


def test_a_volume_that_stays_is_an_error(tmp_path):
    done, _ = deleted(tmp_path, "echo 'connection refused' >&2; exit 1")
    assert (done.returncode, done.stderr) == (1, "connection refused\n")


def test_lost_claims_are_those_that_still_name_the_deleted_volume():
    def claim(name, volume):
        metadata = {"name": name, "namespace": "default"}
        return {
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "spec": {"volumeName": volume},
        }

    volumes = [LocalVolume(f"pvc-{n}", f"default/data-{n}", ("default/old",)) for n in range(3)]
    objects = [claim("data-0", "pvc-0"), claim("data-1", "pvc-9"), pod("db-0", claimed("data-0"))]

    assert still_claimed(volumes, objects) == (
        LocalVolume("pvc-0", "default/data-0", ("default/db-0",)),
    )


def test_the_end_of_the_command_names_claim_pods_and_the_next_command(capsys):
    lost = LocalVolume("pvc-1", "default/data-db-0", ("default/db-0",))

    summaries.show_lost(Path("ha.py"), (lost, LocalVolume("pvc-2")))

    text = capsys.readouterr().out
    assert "The claim default/data-db-0 is Lost" in text
    assert "Its pods wait: default/db-0." in text
    assert (
        "clusterctl kubectl ha.py -- -n default delete persistentvolumeclaim/data-db-0 pod/db-0"
        in text
    )
    assert "pvc-2" not in text
