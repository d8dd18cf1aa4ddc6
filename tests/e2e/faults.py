"""The drill's faults that are end-to-end tests: on which cluster, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from _pytest.mark import ParameterSet

from tests.e2e.sample import long

# Fault -> seconds. Five machines: the cluster recovers by itself, or with one command.
SHARED = {
    "leader-cut-off": 45,
    "partitioned": 45,
    "deaf": 45,
    "apiserver-stopped": 45,
    "apiserver-frozen": 45,
    "worker-replaced": 95,
    "all-off": 60,
}
# Three masters, which the first of these tests creates.
MASTERS = {
    "ctrl-c": 140,
    "machine-lost-in-up": 170,
    "network-lost-in-up": 170,
    "host-key-changed": 110,
    "etcd-wiped": 140,
    "master-moved": 140,
    "replace-killed": 140,
    "nospace": 105,
    "restore-killed": 225,
    "quorum-lost": 265,
}
# Other tests cover these: shared/drill_test.py, shared/nodes_test.py, single/first_up_test.py. Or
# they are so similar to another fault that only `make drill` runs them.
ELSEWHERE = (
    "machine-off", "leader-off", "mute", "master-replaced", "two-operators", "stale-lock",
    "network-lost-in-replace", "network-lost-in-restore",
)  # fmt: skip


def tests(costs: Mapping[str, int]) -> list[ParameterSet]:
    """A test for each fault."""
    return [pytest.param(name, marks=long(seconds)) for name, seconds in costs.items()]
