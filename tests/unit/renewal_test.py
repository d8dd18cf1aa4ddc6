"""Which renewal a run goes on with."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from provision.commands.certs import renewal
from provision.model.errors import PhaseError
from provision.model.look import Look
from tests.world import NOW, Obedient, artifacts, converged, trust

ALL = frozenset()
# All that is there was issued after it.
BEFORE = NOW - timedelta(minutes=1)
LATER = NOW + timedelta(days=30)


@pytest.fixture
def renewing(tmp_path, monkeypatch):
    """A cluster that is as it should be; `notes` is what it is told, `executed` what was done."""
    of, observed = converged()
    notes, executed = [], []
    session = SimpleNamespace(
        took=0.0,
        cluster=of,
        cache=SimpleNamespace(directory=lambda: tmp_path),
        progress=SimpleNamespace(note=notes.append),
        engine=Obedient(),
    )
    look = Look(of, observed)
    monkeypatch.setattr(renewal, "look_at_existing", lambda _: (look, trust()))
    monkeypatch.setattr(renewal, "as_installed", lambda *_: artifacts(of))
    monkeypatch.setattr(renewal, "execute", lambda run, _: executed.append(run))
    return SimpleNamespace(session=session, notes=notes, executed=executed)


def stopped(renewing, monkeypatch, at):
    def fail(*_):
        raise PhaseError("control plane", [])

    run = renewal.prepare(renewing.session, ALL, now=at)
    with monkeypatch.context() as patched:
        patched.setattr(renewal, "execute", fail)
        with pytest.raises(PhaseError):
            renewal.renew(run, ALL)


def begins(renewing, at, names=ALL):
    """How many machines get something anew."""
    return len(renewal.issued(renewal.prepare(renewing.session, names, now=at).plan))


def test_a_renewal_that_was_only_planned_is_not_remembered(renewing, tmp_path):
    assert begins(renewing, BEFORE) == 0
    assert list(tmp_path.iterdir()) == []
    assert begins(renewing, LATER) == 5


def test_a_run_that_was_stopped_goes_on_and_says_so(renewing, monkeypatch):
    stopped(renewing, monkeypatch, BEFORE)
    assert begins(renewing, NOW + timedelta(hours=23)) == 0
    assert "begun on 2025-12-31 23:59 UTC" in renewing.notes[-1]


def test_a_run_that_was_stopped_a_day_ago_is_forgotten(renewing, monkeypatch):
    stopped(renewing, monkeypatch, BEFORE)
    assert begins(renewing, NOW + timedelta(hours=24)) == 5
    assert renewing.notes == []


def test_a_run_for_other_names_is_another(renewing, monkeypatch):
    stopped(renewing, monkeypatch, BEFORE)
    assert begins(renewing, NOW + timedelta(hours=1), frozenset({"kubelet-serving"})) == 5


def test_a_finished_renewal_is_not_remembered(renewing, tmp_path):
    renewal.renew(renewal.prepare(renewing.session, ALL, now=LATER), ALL)
    assert len(renewing.executed) == 1
    assert list(tmp_path.iterdir()) == []
