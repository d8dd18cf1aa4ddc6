"""When kubectl's complaint is only about the way there."""

from types import SimpleNamespace

import pytest

from provision.apply import kubectl
from provision.apply.kubectl import PATIENCE, is_away


@pytest.mark.parametrize(
    "error",
    [
        "Unable to connect to the server: unexpected EOF",
        'error: Get "https://127.0.0.1:7443/api": dial tcp 127.0.0.1:7443: connect: connection refused',
        "Error from server (ServiceUnavailable): the server is currently unable to handle the request",
        "Error from server: etcdserver: leader changed",
        "Unable to connect to the server: net/http: TLS handshake timeout",
    ],
)
def test_the_api_is_away_for_a_moment(error):
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        'Error from server (NotFound): nodes "w1" not found',
        "error: timed out waiting for the condition on nodes/w1",
        "Error from server (Forbidden): nodes is forbidden",
        "error: unable to drain node",
        "",
    ],
)
def test_an_answer_is_an_answer(error):
    assert not is_away(error)


@pytest.mark.parametrize(("seconds", "runs"), [(PATIENCE + 13, 2), (PATIENCE / 4, 6)])
def test_a_program_is_repeated_after_the_api_went_away_however_long_it_took(
    monkeypatch, seconds, runs
):
    now = 0.0
    begun = []

    def shell(leader, program, **_):
        nonlocal now
        begun.append(now)
        now += seconds
        return 1, "", "Unable to connect to the server: unexpected EOF"

    monkeypatch.setattr(kubectl.time, "monotonic", lambda: now)
    monkeypatch.setattr(kubectl.gevent, "sleep", lambda _: None)
    session = SimpleNamespace(engine=SimpleNamespace(shell=shell))

    code, _, _ = kubectl.run(session, "m1", "kubectl apply")

    assert code == 1
    assert len(begun) == runs
