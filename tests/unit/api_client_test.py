"""When kubectl's complaint is only about the way there."""

import pytest

from provision.apply.kubectl import is_away


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
