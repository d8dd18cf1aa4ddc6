"""What follows from one look at the machines."""

from dataclasses import replace

import pytest

from provision.model.errors import TrustError, UnreachableError
from provision.model.look import Look, reasons
from provision.model.observed import Observed
from tests.world import DEFAULT, converged

OF, SEEN = converged()


def look(*, off=(), not_ready=()):
    views = {n: Observed(n, error="is off", off=True) if n in off else v for n, v in SEEN.items()}
    for name in not_ready:
        views[name] = replace(views[name], api=replace(views[name].api, ready=False))
    return Look(OF, views)


def test_the_leader_is_the_first_master_whose_apiserver_is_ready():
    assert look().leader().name == "m1"
    assert look(off=["m1"]).leader().name == "m2"
    assert look(off=["m1"], not_ready=["m2"]).leader().name == "m3"
    assert look().leader(but="m1").name == "m2"


def test_without_an_apiserver_that_is_ready_the_leader_is_a_master_that_answers():
    assert look(off=["m1"], not_ready=["m2", "m3"]).leader().name == "m2"


def test_without_a_master_that_answers_the_error_names_each():
    with pytest.raises(UnreachableError, match="m1: is off; m2: is off; m3: is off"):
        look(off=["m1", "m2", "m3"]).leader()


def test_machines_answer_or_are_unreachable_and_those_not_looked_at_are_neither():
    seen = look(off=["m2"]).of(DEFAULT.model_copy(update={"machines": DEFAULT.masters[:2]}))
    assert [m.name for m in seen.answering(DEFAULT.machines)] == ["m1"]
    assert seen.unreachable() == seen.unreachable(DEFAULT.machines) == {"m2": "is off"}
    assert reasons(seen.unreachable()) == "m2: is off"


def test_machines_of_two_clusters_have_no_fingerprint():
    one = replace(SEEN["m1"], fingerprint="a")
    assert Look(OF, {**SEEN, "m1": one, "m2": replace(SEEN["m2"], fingerprint="a")}).installed
    with pytest.raises(TrustError, match=r"m1 \(a\), m2 \(b\)"):
        Look(OF, {"m1": one, "m2": replace(SEEN["m2"], fingerprint="b")}).fingerprint()
