"""When a renewal asks, and what it does with the answer."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import typer

from provision.apply import lock
from provision.cli import certs_commands
from provision.model.errors import RefusedError
from provision.model.source import LAB, STATIC


@pytest.fixture
def told(monkeypatch):
    """What happens, in order; the user says yes."""
    told = []

    @contextmanager
    def hold(_, command, look):
        told.append("locked")
        yield
        told.append("unlocked")

    monkeypatch.setattr(lock, "hold", hold)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: told.append("asked"))
    monkeypatch.setattr("provision.cli.views.plan.summary", lambda _: "")
    return told


def session(told, source=STATIC):
    return SimpleNamespace(
        cluster=SimpleNamespace(name="one", inventory="one.py"),
        draft=SimpleNamespace(source=source),
        observe=lambda: told.append("looked"),
    )


def planning(told, *plans):
    left = iter(plans)

    def prepare():
        told.append("planned")
        return SimpleNamespace(look=None, plan=next(left))

    return prepare


PLAN, OTHER = SimpleNamespace(empty=False), SimpleNamespace(empty=False, other=True)


def test_the_question_comes_before_the_lock_since_it_would_stop_the_heartbeat(told):
    prepare = planning(told, PLAN, PLAN)
    with certs_commands._agreed(session(told), "certs renew", prepare, yes=False):
        told.append("worked")
    assert told == ["planned", "asked", "locked", "planned", "worked", "unlocked"]


def test_machines_that_changed_during_the_question_are_left_alone(told):
    prepare = planning(told, PLAN, OTHER)
    with (
        pytest.raises(RefusedError, match="changed after you confirmed"),
        certs_commands._agreed(session(told), "certs renew", prepare, yes=False),
    ):
        told.append("worked")
    assert "worked" not in told


@pytest.mark.parametrize(("source", "yes"), [(LAB, False), (STATIC, True)])
def test_without_a_question_the_plan_is_made_once(told, source, yes):
    prepare = planning(told, PLAN)
    with certs_commands._agreed(session(told, source), "certs renew", prepare, yes=yes):
        told.append("worked")
    assert told == ["looked", "locked", "planned", "worked", "unlocked"]
