from gevent import monkey

# As in provision/__main__.py, and before anything that imports ssl or makes a thread.
monkey.patch_all()

import os  # noqa: E402
import signal  # noqa: E402

import gevent  # noqa: E402
from hypothesis import settings  # noqa: E402

# How long an example takes says how busy the machine is.
settings.register_profile("clusterctl", deadline=None)
settings.load_profile("clusterctl")

# Started as a shell's background job, the tests and all that they start would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/files anew")


def _tick():
    while True:
        gevent.sleep(1)


# A worker of pytest-xdist waits for tests that a thread unknown to gevent receives. Without anything
# else to wait for, gevent would take that for a deadlock.
if "PYTEST_XDIST_WORKER" in os.environ:
    gevent.spawn(_tick)
