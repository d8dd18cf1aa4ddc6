import os
import signal

from hypothesis import settings

# There are no deadlines: the duration of an example depends only on the load of the computer. A
# usual run tries fewer examples of each property; `make test-all` tries all. A test that states its
# own number of examples keeps it in both profiles.
settings.register_profile("usual", deadline=None, max_examples=25)
settings.register_profile("all", deadline=None, max_examples=100)
settings.load_profile("all" if os.environ.get("CLUSTERCTL_SAMPLE") == "all" else "usual")

# In a background job of a shell, the tests and all processes that they start would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/files anew")
