"""Choose the long tests that this run executes, by the commit's hash.

A long test says what it costs: `@long(seconds)`. A run executes long tests for BUDGET seconds, in
an order that the commit's hash decides. So every long test is executed over the runs, and a
repeated run of one commit executes the same tests. All other tests always run. A long test that
names its parts, such as the phases in which `up` is killed, executes some of them.

CLUSTERCTL_SAMPLE=all (`make test-all`) executes everything; any other text replaces the commit's
hash. A test that pytest's command line names (`file.py::test`, `-k`) is executed in any case.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

EVERYTHING = "all"
BUDGET = 600  # seconds of long tests, on two cores

# Name -> how many of its parts a run executes, and the parts.
PARTS = {
    "up is killed in the phase": (
        3,
        (
            "machines", "artifacts", "services", "etcd", "control plane", "objects", "nodes",
            "ready", "dns", "verify",
        ),
    ),
    "bad snapshot": (
        2, ("cut", "other", "newer", "altered", "foreign", "locked", "words", "absent")
    ),
}  # fmt: skip


def long(seconds: int, together: str = "") -> pytest.MarkDecorator:
    """A mark for a test that takes 45 s or more.

    Args:
        seconds: what it costs on two cores, with a cluster that it needs for itself. If that is
            more than BUDGET, only `make test-all` executes it.
        together: tests with the same text are executed together, and cost `seconds` once.
    """
    return pytest.mark.long(seconds=seconds, together=together)


@cache
def seed() -> str:
    """The seed of the choice: CLUSTERCTL_SAMPLE, or the hash of the checked-out commit."""
    if given := os.environ.get("CLUSTERCTL_SAMPLE"):
        return given
    head = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(
        head, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "no commit"


def choose(costs: Mapping[str, int], seed: str, budget: int = BUDGET) -> frozenset[str]:
    """Choose names in random order, each that fits into the rest of the budget.

    Args:
        costs: name -> seconds.
    """
    if seed == EVERYTHING:
        return frozenset(costs)
    names = sorted(costs)
    random.Random(seed).shuffle(names)  # noqa: S311
    chosen = set()
    for name in names:
        if costs[name] <= budget:
            chosen.add(name)
            budget -= costs[name]
    return frozenset(chosen)


def sampled(name: str) -> tuple[str, ...]:
    """The parts of a test that this run executes, in the order of PARTS."""
    return parts_of(name, seed())


def parts_of(name: str, seed: str) -> tuple[str, ...]:
    """The parts of a test that a run with this seed executes, in the order of PARTS."""
    take, parts = PARTS[name]
    if seed == EVERYTHING:
        return parts
    chosen = random.Random(f"{name} {seed}").sample(parts, take)  # noqa: S311
    return tuple(part for part in parts if part in chosen)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Remove the long tests that this run does not execute.

    Returns:
        For each long test a line: its cost, its name, and whether this run executes it.
    """
    costs = {_unit(item): mark.kwargs["seconds"] for item in items if (mark := _mark(item))}
    named = config.option.keyword or any("::" in argument for argument in config.args)
    chosen = frozenset(costs) if named else choose(costs, seed())
    left_out = [item for item in items if _mark(item) and _unit(item) not in chosen]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    return [
        f"{'long test' if unit in chosen else 'left out '} {seconds:5} s  {unit}"
        for unit, seconds in sorted(costs.items())
    ]


def _mark(item: pytest.Item) -> pytest.Mark | None:
    return item.get_closest_marker("long")


def _unit(item: pytest.Item) -> str:
    """What is chosen as a whole: a test, or tests that are executed together."""
    mark = _mark(item)
    return (mark.kwargs["together"] if mark else "") or item.nodeid.removeprefix("tests/e2e/")
