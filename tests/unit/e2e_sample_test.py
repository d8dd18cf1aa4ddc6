"""What end-to-end tests leave out by sampling is executed by other commits."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from provision.drill.faults import FAULTS
from tests.e2e import faults, lanes
from tests.e2e.sample import EVERYTHING, SAMPLES

HASHES = [hashlib.sha1(str(n).encode()).hexdigest() for n in range(200)]  # noqa: S324 as git's
BY_HASH = [name for name, sample in SAMPLES.items() if sample.take]


@pytest.mark.parametrize("name", BY_HASH)
def test_over_many_commits_every_part_is_executed(name):
    sample = SAMPLES[name]

    chosen = [sample.of(name, commit) for commit in HASHES]

    assert {len(parts) for parts in chosen} == {sample.take}
    assert {part for parts in chosen for part in parts} == set(sample.parts)


def test_one_commit_chooses_the_same_in_every_process():
    program = "from tests.e2e.sample import SAMPLES, sampled; print(*map(sampled, SAMPLES))"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"CLUSTERCTL_SAMPLE": HASHES[0]},
        capture_output=True,
        text=True,
        check=True,
    )

    here = (sample.of(name, HASHES[0]) for name, sample in SAMPLES.items())
    assert done.stdout.strip() == " ".join(map(str, here))


def test_two_samples_are_not_chosen_together():
    pairs = {
        (SAMPLES["fault during up"].of("fault during up", c), SAMPLES["test"].of("test", c))
        for c in HASHES
    }

    assert len(pairs) == 4


@pytest.mark.parametrize("name", SAMPLES)
def test_all_executes_everything(name):
    assert SAMPLES[name].of(name, EVERYTHING) == SAMPLES[name].parts


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
