"""Patches this process for gevent, as provision/__main__.py does: import it before all others.

Tests with SSH servers, AWS and machines need it. Unit tests do without: a patched `subprocess` forks
the whole of a large process for each child, where Python's own starts it by vfork.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

import gevent  # noqa: E402


def _tick():
    while True:
        gevent.sleep(1)


# A worker of pytest-xdist waits for tests that a thread unknown to gevent receives. Without anything
# else to wait for, gevent would take that for a deadlock.
if "PYTEST_XDIST_WORKER" in os.environ:
    gevent.spawn(_tick)
