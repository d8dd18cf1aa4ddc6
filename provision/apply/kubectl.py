"""kubectl on a master is the client of the API. It is repeated while the API is briefly away."""

from __future__ import annotations

import re
import time

import gevent

from provision.apply.session import Session
from provision.model.cluster import Machine

PATIENCE = 60  # seconds: enough to elect a leader, switch a proxy or restart an apiserver
# What kubectl prints when the connection failed, not the request (client-go, net/http, etcd's
# client, apiserver's own Status).
_AWAY = re.compile(
    r"unexpected EOF|\bEOF$|connection refused|connection reset|connection lost|i/o timeout"
    r"|TLS handshake timeout|Unable to connect to the server|no route to host|ServiceUnavailable"
    r"|currently unable to handle the request|etcdserver: (leader changed|request timed out"
    r"|no leader)|the server was unable to return a response|Timeout: request did not complete",
    re.MULTILINE,
)


def is_away(error: str) -> bool:
    """Whether kubectl's error output means that the API was away and may be back soon."""
    return bool(_AWAY.search(error))


def run(
    session: Session,
    leader: Machine,
    program: str,
    stdin: bytes = b"",
    *,
    secret_output: bool = False,
    timeout: float | None = None,
) -> tuple[int, str, str]:
    """Run a program of kubectl commands on a master: (exit status, stdout, stderr).

    Args:
        program: it is repeated while the API is away, so it must be safe to repeat.
        timeout: seconds for one run of the program.

    Raises:
        UnreachableError: there is no connection to the master, it broke, or a run did not end in
            time.
    """
    deadline = None
    while True:
        code, out, error = session.engine.shell(
            leader, program, stdin=stdin, secret_output=secret_output, timeout=timeout
        )
        if code == 0 or not is_away(error):
            return code, out, error
        # From the first failure on: a program alone may take longer than the patience.
        deadline = deadline or time.monotonic() + PATIENCE
        if time.monotonic() > deadline:
            return code, out, error
        gevent.sleep(1)
