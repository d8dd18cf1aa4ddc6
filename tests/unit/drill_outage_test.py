"""What a record of writes says about an outage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.drill.outage import (
    HANGS,
    PENDING,
    STALL,
    Attempt,
    acknowledged,
    calm,
    excused,
    lost,
    outage,
)


def steady(start, end, took=0.02):
    """A write every 100 ms, answered at once."""
    times = [start + i / 10 for i in range(round((end - start) * 10))]
    return [Attempt(f"w{t:.1f}", t, t + took) for t in times]


def failing(start, end, took=0.02, error="refused"):
    return [Attempt(a.name, a.began, a.began + took, error) for a in steady(start, end)]


def test_without_a_failure_there_was_no_outage():
    assert outage(steady(0, 10), since=5) == 0


def test_an_outage_ends_with_the_first_answer_from_which_on_none_failed():
    attempts = steady(0, 5) + failing(5, 6) + steady(6, 6.5) + failing(6.5, 7) + steady(7, 10)
    assert outage(attempts, since=5) == pytest.approx(2.02)


def test_writes_that_hang_do_not_make_the_outage_longer_than_it_was():
    attempts = steady(0, 5) + failing(5, 6, took=5, error="timed out") + steady(6, 20)
    assert outage(attempts, since=5) == pytest.approx(1.02)


def test_writes_that_are_all_answered_late_were_not_possible_before():
    late = [Attempt(a.name, a.began, 8.0) for a in steady(5, 8)]
    assert outage(steady(0, 5) + late + steady(8, 10), since=5) == pytest.approx(3)


def test_a_slow_answer_among_others_is_no_outage():
    slow = Attempt("slow", 6, 8)
    assert outage([*steady(0, 10), slow], since=5) == 0


def test_an_outage_that_has_not_ended_has_no_length():
    assert outage(steady(0, 5) + failing(5, 10), since=5) is None


def test_failures_before_the_fault_are_not_its():
    assert outage(failing(0, 2) + steady(2, 10), since=5) == 0


def test_it_is_calm_since_the_last_failure_began():
    attempts = steady(0, 5) + failing(5, 5.5) + steady(5.5, 9)
    assert calm(attempts, now=9) == pytest.approx(9 - 5.4)


def test_it_is_not_calm_while_nothing_is_answered():
    assert calm([], now=1) == 0
    assert calm(steady(0, 5), now=5 + 2 * STALL) == 0


def test_it_is_not_calm_while_some_writes_hang():
    hanging = Attempt("h", 5, 5 + HANGS + 0.1, PENDING)
    assert calm([*steady(0, 7.1), hanging], now=7.1) == pytest.approx(2.1)


def test_failed_writes_do_not_count_as_acknowledged():
    assert acknowledged([*steady(0, 0.2), *failing(0.2, 0.4)]) == ("w0.0", "w0.1")


def test_a_write_is_lost_if_one_member_does_not_have_it():
    assert lost(["a", "b"], {"m1": {"a", "b", "c"}, "m2": {"b"}}) == ("a",)


def test_only_what_was_acknowledged_between_fault_and_remedy_may_be_lost():
    attempts = [
        Attempt("before", 0, 4.9),
        Attempt("on its way", 4.9, 5.1),
        Attempt("refused", 6, 6.1, "refused"),
        Attempt("meanwhile", 7, 7.1),
        Attempt("after", 8.1, 8.2),
    ]
    assert excused(attempts, since=5, until=8) == {"on its way", "meanwhile"}


attempt = st.builds(
    lambda began, took, error: Attempt("x", began, began + took, error),
    st.floats(0, 20),
    st.floats(0, 5),
    st.sampled_from(["", "", "refused"]),
)


@given(st.lists(attempt), st.floats(0, 20))
def test_after_an_outage_has_ended_nothing_fails_that_begins_later(attempts, since):
    length = outage(attempts, since)
    if length is not None:
        assert length >= 0
        assert not [a for a in attempts if a.failed and a.began > since + length]
