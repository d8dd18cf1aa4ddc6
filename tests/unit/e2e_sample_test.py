"""What end-to-end tests leave out by sampling is executed by other commits."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from provision.drill.faults import FAULTS
from tests.e2e import faults, lanes
from tests.e2e.sample import BUDGET, EVERYTHING, PARTS, choose, parts_of

HASHES = [hashlib.sha1(str(n).encode()).hexdigest() for n in range(200)]  # noqa: S324 as git's
COSTS = {**faults.SHARED, **faults.MASTERS}


def test_over_many_commits_every_long_test_is_executed_and_none_takes_longer_than_the_budget():
    chosen = [choose(COSTS, commit) for commit in HASHES]

    assert set().union(*chosen) == set(COSTS)
    for names in chosen:
        spent = sum(COSTS[name] for name in names)
        cheapest = min(cost for name, cost in COSTS.items() if name not in names)
        assert BUDGET - cheapest < spent <= BUDGET


def test_a_test_that_costs_more_than_the_budget_is_executed_only_on_demand():
    costs = {"short": 50, "endless": BUDGET + 1}

    assert {choose(costs, commit) for commit in HASHES} == {frozenset({"short"})}
    assert choose(costs, EVERYTHING) == set(costs)


@pytest.mark.parametrize("name", PARTS)
def test_over_many_commits_every_part_is_executed(name):
    take, parts = PARTS[name]

    chosen = [parts_of(name, commit) for commit in HASHES]

    assert {len(some) for some in chosen} == {take}
    assert {part for some in chosen for part in some} == set(parts)
    assert parts_of(name, EVERYTHING) == parts


def test_one_commit_chooses_the_same_in_every_process():
    program = (
        "from tests.e2e.sample import *; print(sorted(choose(%r, seed())), *map(sampled, PARTS))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program % COSTS],
        env={"CLUSTERCTL_SAMPLE": HASHES[0]},
        capture_output=True,
        text=True,
        check=True,
    )

    parts = (str(parts_of(name, HASHES[0])) for name in PARTS)
    assert done.stdout.strip() == " ".join((str(sorted(choose(COSTS, HASHES[0]))), *parts))


def test_every_fault_of_the_drill_is_tested_or_has_a_reason_not_to_be():
    listed = (*faults.SHARED, *faults.MASTERS, *faults.ELSEWHERE)

    assert sorted(listed) == sorted(fault.name for fault in FAULTS)


def test_a_cluster_of_the_lanes_is_a_folder_or_a_file_of_tests():
    here = Path(lanes.__file__).parent
    files = here.rglob("*_test.py")
    nodeids = [f"tests/e2e/{path.relative_to(here).as_posix()}::test" for path in files]

    assert set(lanes.CLUSTERS) <= {lanes.cluster_of(nodeid) for nodeid in nodeids}
    assert lanes.cluster_of("tests/e2e/shared/ha_test.py::test_a[m1]") == "shared"
    assert lanes.cluster_of("tests/e2e/strict_test.py::test_a[a/b]") == "strict"
