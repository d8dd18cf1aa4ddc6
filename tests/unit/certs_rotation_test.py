"""Stages of a rotation: when the next one may begin. Commands are run here, on programs that fail."""

import subprocess
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from provision.commands.certs import rotation
from provision.model.errors import PhaseError, RefusedError
from provision.model.look import Look
from provision.pki.rotation import AUTHORITIES, Part, Stage, advance, begin, reached
from tests.world import DEFAULT, NOW, artifacts, converged, trust

LOOK = Look(*converged())
ENCRYPTION = (Part.ENCRYPTION,)
ACTIVE = advance(begin(trust(), ENCRYPTION, "demo", NOW), ENCRYPTION, NOW)
OLD = "k8s:enc:secretbox:v1:key1:"
NEW = "k8s:enc:secretbox:v1:key2:"
CONFLICT = 'Error from server (Conflict): error when replacing "STDIN": changed'


@pytest.fixture
def rewritten(tmp_path, monkeypatch):
    """Rewrites Secrets with these programs in the places of kubectl's verbs and etcdctl."""

    def run(get="echo {}", replace="cat", etcdctl="true"):
        for name, body in (("kubectl", f'case $1 in get) {get} ;; *) {replace} ;; esac'),
                           ("etcdctl", etcdctl)):  # fmt: skip
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setattr(rotation, "KUBECTL", str(tmp_path / "kubectl"))
        monkeypatch.setattr(rotation.etcd, "etcdctl", lambda *_, **__: f"{tmp_path}/etcdctl")

        def shell(machine, command, **_):
            done = subprocess.run(
                ["sh", "-c", command], capture_output=True, text=True, check=False
            )
            return done.returncode, done.stdout, done.stderr

        progress = SimpleNamespace(phase=lambda *_: nullcontext(), done=lambda _: None)
        session = SimpleNamespace(
            cluster=DEFAULT,
            engine=SimpleNamespace(shell=shell),
            progress=progress,
        )
        rotation._rewrite_secrets(session, LOOK, ACTIVE)

    return run


def test_secrets_that_are_all_encrypted_anew_let_the_old_key_go(rewritten):
    rewritten(etcdctl=f"printf '{NEW}\\001\\n{NEW}\\002\\n'")


@pytest.mark.parametrize(
    ("programs", "why"),
    [
        ({"etcdctl": "echo deadline >&2; exit 1"}, "could not be checked: deadline"),
        ({"etcdctl": f"echo {NEW}; echo killed >&2; exit 137"}, "could not be checked: killed"),
        ({"etcdctl": f"echo {OLD}a; echo {NEW}b; echo {OLD}c"}, "2 Secrets are still"),
        ({"get": "echo refused >&2; exit 1"}, "refused"),
        ({"replace": "cat >/dev/null; echo forbidden >&2; exit 1"}, "forbidden"),
        ({"replace": "cat >/dev/null; exit 137"}, ""),
        ({"replace": f"cat >/dev/null; echo '{CONFLICT}' >&2; echo bad >&2; exit 1"}, "bad"),
    ],
)
def test_the_old_key_is_not_forgotten_unless_it_was_seen_that_nothing_needs_it(
    rewritten, programs, why
):
    with pytest.raises(PhaseError) as raised:
        rewritten(**programs)
    assert why in raised.value.failures[0].cause


def test_a_secret_that_changed_meanwhile_is_no_failure(rewritten):
    rewritten(replace=f"cat >/dev/null; echo '{CONFLICT}' >&2; exit 1")


ACCOUNTS = (Part.SERVICE_ACCOUNT,)


def at(stage, parts=ACCOUNTS):
    made = begin(trust(), parts, "demo", NOW)
    return made if stage is Stage.INTRODUCED else advance(made, parts, NOW)


@pytest.fixture
def session(monkeypatch):
    """A cluster that is as its inventory says, with the trust of `world`; `kept` are its others."""
    kept = []
    session = SimpleNamespace(
        took=0.0,
        cluster=DEFAULT,
        kept=kept,
        cache=SimpleNamespace(keep=kept.append, trust=lambda: kept[-1] if kept else None),
        progress=SimpleNamespace(note=lambda _: None),
    )
    monkeypatch.setattr(rotation.renewal, "as_installed", lambda *_: artifacts(DEFAULT))
    return session


def prepared(session, monkeypatch, known, parts, *, distrust=False, unfinished=False):
    monkeypatch.setattr(rotation.renewal, "look_at_existing", lambda _: (LOOK, known))
    plan = SimpleNamespace(empty=not unfinished, machines={})
    monkeypatch.setattr(rotation, "make_plan", lambda *_: plan)
    return rotation.prepare(session, parts, distrust=distrust)


def test_the_hour_begins_when_every_machine_was_seen_to_sign_with_the_new_key(session, monkeypatch):
    done = []

    def reach(_, known, *__, **___):
        done.append(known.rotation(Part.SERVICE_ACCOUNT))
        return 1.0

    monkeypatch.setattr(rotation, "_reach", reach)
    before = datetime.now(UTC)
    report = rotation.carry_out(session, at(Stage.INTRODUCED), ACCOUNTS)
    assert report.waiting == ACCOUNTS
    assert [r.stage for r in done] == [Stage.INTRODUCED, Stage.ACTIVE, Stage.ACTIVE]
    # Machines, and so other computers, know it too.
    assert [r.since for r in done[:2]] == [None, None]
    assert before <= done[2].since
    assert session.kept[-1].rotation(Part.SERVICE_ACCOUNT) == done[2]


def test_a_stage_that_is_resumed_begins_its_hour_anew(session, monkeypatch):
    monkeypatch.setattr(rotation, "_reach", lambda *_, **__: 1.0)
    rotation.carry_out(session, reached(at(Stage.ACTIVE), ACCOUNTS, NOW), ACCOUNTS)
    assert session.kept[-1].rotation(Part.SERVICE_ACCOUNT).since > NOW


def test_the_old_key_is_withdrawn_an_hour_after_and_not_before(session, monkeypatch):
    def ask(ago=None, **how):
        known = at(Stage.ACTIVE)
        if ago is not None:
            known = reached(known, ACCOUNTS, datetime.now(UTC) - ago)
        return prepared(session, monkeypatch, known, ACCOUNTS, distrust=True, **how)

    with pytest.raises(RefusedError, match="it is not known yet"):
        ask()
    with pytest.raises(RefusedError, match="for 2 minutes"):
        ask(timedelta(minutes=59))
    with pytest.raises(RefusedError, match="differs from its inventory"):
        ask(timedelta(hours=2), unfinished=True)
    withdrawn = ask(timedelta(hours=2))
    assert withdrawn.rotation(Part.SERVICE_ACCOUNT).stage is Stage.WITHDRAWN
    # Stopped then, it goes on.
    again = prepared(session, monkeypatch, withdrawn, ACCOUNTS, distrust=True, unfinished=True)
    assert again.rotation(Part.SERVICE_ACCOUNT).stage is Stage.WITHDRAWN


def test_several_are_not_taken_for_done_when_one_of_them_is(session, monkeypatch):
    known = begin(trust(), (Part.ETCD,), "demo", NOW)
    with pytest.raises(RefusedError, match="only etcd is being replaced") as refused:
        prepared(session, monkeypatch, known, tuple(AUTHORITIES))
    assert "rotate-ca /inventories/demo.py --ca etcd; then this again" in refused.value.hint


def test_the_hint_names_the_command_that_finishes_a_waiting_rotation(session, monkeypatch):
    both = (Part.ETCD, Part.SERVICE_ACCOUNT)
    with pytest.raises(RefusedError) as refused:
        prepared(session, monkeypatch, reached(at(Stage.ACTIVE), ACCOUNTS, NOW), both)
    assert "--ca service-account --distrust; then" in refused.value.hint
    # Not even that was seen.
    with pytest.raises(RefusedError) as refused:
        prepared(session, monkeypatch, at(Stage.ACTIVE), both)
    assert "--ca service-account; then" in refused.value.hint


def test_parts_that_were_replaced_together_continue_together(session, monkeypatch):
    known = begin(trust(), tuple(AUTHORITIES), "demo", NOW)
    assert prepared(session, monkeypatch, known, tuple(AUTHORITIES), unfinished=True) is known
