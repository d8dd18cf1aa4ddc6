"""Quorum arithmetic, and what a machine is to the cluster's etcd."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.model.observed import EtcdMember, EtcdView, Observed
from provision.plan.quorum import (
    Membership,
    Standing,
    against_join,
    against_removal,
    against_restart,
    membership,
    quorum,
    standing,
)
from tests.world import cluster, disks, master


def member(name, *, learner=False, started=True):
    url = f"https://10.77.0.{10 + int(name[1:])}:2380"
    return EtcdMember(name, name if started else "", (url,), learner)


def known(voters, healthy=None, learners=()):
    return Membership(
        {name: member(name) for name in voters},
        {name: member(name, learner=True) for name in learners},
        frozenset(voters if healthy is None else healthy),
    )


@st.composite
def memberships(draw):
    voters = [f"m{i}" for i in range(1, draw(st.integers(1, 7)) + 1)]
    return known(voters, draw(st.sets(st.sampled_from(voters))))


def has_quorum(voters, healthy):
    """By counting, not by the function under test."""
    return 2 * len(set(healthy) & set(voters)) > len(set(voters))


@given(memberships(), st.data())
def test_no_removal_that_is_allowed_passes_through_a_state_without_quorum(there, data):
    while there.voters:
        name = data.draw(st.sampled_from(sorted(there.voters)))
        if against_removal(there, name):
            break
        assert has_quorum(there.voters, there.healthy), "no quorum could agree on it"
        voters = [v for v in there.voters if v != name]
        there = known(voters, there.healthy - {name})
        assert has_quorum(there.voters, there.healthy), "the rest could not go on"


@given(memberships(), st.data())
def test_a_restart_that_is_allowed_keeps_the_quorum_of_three_or_more(there, data):
    name = data.draw(st.sampled_from(sorted(there.voters)))
    if name in there.healthy and len(there.voters) > 2 and not against_restart(there, name):
        assert has_quorum(there.voters, there.healthy - {name})


@given(memberships(), st.data())
def test_every_refused_removal_would_have_lost_the_quorum_or_the_data(there, data):
    name = data.draw(st.sampled_from(sorted(there.voters)))
    if against_removal(there, name):
        left = [v for v in there.voters if v != name]
        before = has_quorum(there.voters, there.healthy)
        assert not (before and left and has_quorum(left, there.healthy - {name}))
    if against_restart(there, name):
        assert not has_quorum(there.voters, there.healthy - {name})


@given(memberships())
def test_a_member_joins_only_a_healthy_cluster_and_never_costs_the_quorum(there):
    if not against_join(there):
        assert set(there.healthy) == set(there.voters)
        # A voter more, and even if it fails at once the others are a quorum, from two on.
        if len(there.voters) > 1:
            assert has_quorum([*there.voters, "new"], there.healthy)


@pytest.mark.parametrize(("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_a_quorum_is_more_than_half(voters, needed):
    assert quorum(voters) == needed


def test_a_dead_member_of_three_may_go_and_a_healthy_one_then_may_not():
    there = known(("m1", "m2", "m3"), ("m1", "m3"))
    assert against_removal(there, "m2") == ""
    assert "m2" in against_removal(there, "m1")
    assert "no quorum" in against_restart(there, "m1")


def test_the_last_member_is_never_removed():
    assert "all data of the cluster" in against_removal(known(("m1",)), "m1")


def test_a_learner_may_always_go():
    assert against_removal(known(("m1",), learners=("m2",)), "m2") == ""


# Membership


def etcd(name, *members, healthy=True):
    return EtcdView(healthy=healthy, id=name, members=members)


def seen(of, views):
    return {
        name: replace(disk.observed(), etcd=views.get(name)) for name, disk in disks(of).items()
    }


THREE = cluster(master("m1"), master("m2"), master("m3"))
ALL = tuple(member(name) for name in ("m1", "m2", "m3"))


def test_a_member_is_healthy_if_it_answers_and_is_listed():
    there = membership(THREE, seen(THREE, {"m1": etcd("m1", *ALL), "m3": etcd("m3", *ALL)}))
    assert there is not None
    assert set(there.voters) == {"m1", "m2", "m3"}
    assert there.healthy == {"m1", "m3"}
    assert there.ailing == ("m2",)


def test_without_a_quorum_nothing_is_known():
    assert membership(THREE, seen(THREE, {"m1": etcd("m1", *ALL, healthy=False)})) is None


def test_a_member_that_has_not_started_is_known_by_its_address():
    added = member("m3", learner=True, started=False)
    there = membership(THREE, seen(THREE, {"m1": etcd("m1", *ALL[:2], added)}))
    assert there is not None
    assert set(there.learners) == {"m3"}


# Standing

HERE = known(("m1", "m2"), learners=("m3",))


@pytest.mark.parametrize(
    ("name", "data", "formed", "joining", "expected"),
    [
        ("m1", True, True, False, Standing.MEMBER),
        ("m1", True, False, True, Standing.JOINER),  # promoted, and killed before it was sealed
        ("m1", False, True, False, Standing.WIPED),
        ("m1", False, False, False, Standing.WIPED),
        ("m1", False, False, True, Standing.FOUNDER),  # killed before its first start
        ("m3", False, False, False, Standing.JOINER),
        ("m3", True, False, True, Standing.JOINER),
        ("m4", False, False, False, Standing.JOINER),
        ("m4", True, True, False, Standing.STRANGER),
    ],
)
def test_standing_in_a_cluster_with_a_quorum(name, data, formed, joining, expected):
    view = Observed(name, etcd_data=data, etcd_formed=formed, etcd_joining=joining)
    assert standing(view, HERE, formed=True) is expected


def test_without_a_quorum_an_empty_machine_is_not_started():
    assert standing(Observed("m1"), None, formed=True) is Standing.UNKNOWN


def test_without_a_quorum_a_member_with_data_is_started():
    view = Observed("m1", etcd_data=True, etcd_formed=True)
    assert standing(view, None, formed=True) is Standing.MEMBER


def test_without_any_earlier_cluster_every_machine_is_a_founder():
    assert standing(Observed("m1"), None, formed=False) is Standing.FOUNDER
