"""Patches this process for gevent, as provision/__main__.py does: import it before all others.

Tests with SSH servers, AWS and machines need it. Unit tests do not use it: a patched `subprocess`
forks the whole process for each child, while Python's own `subprocess` uses vfork.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402

import gevent  # noqa: E402


def _tick():
    while True:
        gevent.sleep(1)


# A worker of pytest-xdist waits for tests. A thread that gevent does not know receives them. If
# gevent has nothing else to wait for, it takes that for a deadlock.
if "PYTEST_XDIST_WORKER" in os.environ:
    gevent.spawn(_tick)
