"""Which snapshot fits which cluster."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.commands.etcd import restore, source, verify
from provision.commands.etcd.snapshot_file import Snapshot
from provision.desired.etcd_programs import Target
from provision.model.errors import RefusedError
from provision.model.snapshot import Manifest
from provision.pki import rotation
from provision.pki.trust import Part, Trust
from tests.world import NOW, cluster, trust


def snapshot(**changes):
    values = {
        "format": 1,
        "cluster": "demo",
        "fingerprint": "",
        "machine": "m1",
        "created": "2026-11-21T07:45:00Z",
        "kubernetes": "1.36.3",
        "etcd": "3.6.16",
        "revision": 1234,
        "keys": 321,
        "size": 1,
        "sha256": "",
    }
    return Snapshot("FILE", Manifest.model_validate(values | changes), trust(), Path(), "")


def test_a_snapshot_of_this_cluster_fits_and_on_new_machines_too():
    source.fit(cluster(), trust().fingerprint, snapshot())
    source.fit(cluster(), None, snapshot())


@pytest.mark.parametrize("version", ["3.6.99", "3.5.0", "3.6.0"])
def test_an_older_etcd_or_another_patch_of_it_fits(version):
    source.fit(cluster(), trust().fingerprint, snapshot(etcd=version))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cluster": "other"}, "of the cluster other, not of demo"),
        ({"etcd": "3.8.0"}, "etcd 3.8.0"),
        ({"etcd": "4.0.0"}, "etcd 4.0.0"),
        ({"kubernetes": "1.38.0"}, "Kubernetes 1.38.0"),
    ],
)
def test_a_harmful_restore_is_refused_with_a_hint(changes, said):
    with pytest.raises(RefusedError, match=said) as refusal:
        source.fit(cluster(), trust().fingerprint, snapshot(**changes))
    assert refusal.value.hint


def test_another_cluster_of_the_same_name_is_refused_by_its_authority():
    other = replace(snapshot(), trust=Trust.create("demo", datetime.now(UTC)))
    with pytest.raises(RefusedError, match="another cluster of the name demo"):
        source.fit(cluster(), trust().fingerprint, other)


def test_secrets_of_a_snapshot_are_readable_as_long_as_all_its_keys_are_accepted():
    keys = [trust(), rotation.begin(trust(), [Part.ENCRYPTION], "demo", NOW)]
    while keys[-1].rotations:
        keys.append(rotation.advance(keys[-1], [Part.ENCRYPTION], NOW))

    def readable(taken, now):
        try:
            source.refuse_unreadable(cluster(), now, replace(snapshot(), trust=taken))
        except RefusedError:
            return False
        return True

    table = [[readable(taken, now) for now in keys[i:]] for i, taken in enumerate(keys)]
    assert table == [[1, 1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0], [1, 1], [1]]


def test_a_trial_that_has_what_was_saved_passes_and_any_other_does_not():
    verify.compare(snapshot(), verify.Trial(321, 1234, "m1", 1.0), 1234)
    for keys, revision, saved in ((320, 1234, 1234), (321, 1233, 1234), (321, 1234, 1233)):
        with pytest.raises(RefusedError, match="does not have what was saved"):
            verify.compare(snapshot(), verify.Trial(keys, revision, "m1", 1.0), saved)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_no_revision_that_a_client_has_seen_comes_again(saved, now):
    assert saved + restore.bump_for(saved, now) > now


@given(
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(0, 1 << 50),
    st.sets(st.sampled_from(["m1", "m2", "m3"]), min_size=1),
)
def test_members_that_are_not_given_the_same_never_take_it_for_the_same(sha256, bump, members):
    target = Target(sha256, bump, tuple(sorted(members)))

    assert target.id != replace(target, bump=bump + 1).id
    assert target.id != replace(target, members=(*target.members, "m9")).id
    assert target.id == replace(target).id
