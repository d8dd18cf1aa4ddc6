"""Choose the parts of long tests that this run executes, by the commit's hash.

So different commits execute different parts, and a repeated run of one commit executes the same
parts. Tests that are not in SAMPLES always run whole. CLUSTERCTL_SAMPLE=all (`make test-all`)
executes everything; any other text replaces the commit's hash.
"""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

EVERYTHING = "all"


@dataclass(frozen=True)
class Sample:
    """Parts of one test.

    Attributes:
        take: number of parts that a run executes.
    """

    take: int
    parts: tuple[str, ...]

    def of(self, name: str, seed: str) -> tuple[str, ...]:
        """Choose parts. The result keeps the order of `parts`."""
        if seed == EVERYTHING:
            return self.parts
        chosen = random.Random(f"{name} {seed}").sample(self.parts, self.take)  # noqa: S311
        return tuple(part for part in self.parts if part in chosen)


SAMPLES = {
    "up is killed in the phase": Sample(
        3,
        (
            "machines", "artifacts", "services", "etcd", "control plane", "objects", "nodes",
            "ready", "dns", "verify",
        ),
    ),
    "fault on the network": Sample(1, ("leader-cut-off", "partitioned", "deaf")),
    "fault during up": Sample(1, ("machine-lost-in-up", "network-lost-in-up")),
    "fault that ends with node replace": Sample(1, ("etcd-wiped", "master-moved", "replace-killed")),
    "bad snapshot": Sample(
        2, ("cut", "other", "newer", "altered", "foreign", "locked", "words", "absent")
    ),
    "test": Sample(1, ("vagrant", "reload")),
    # A hash never chooses these: each takes a quarter of an hour, mostly to compile or to emulate.
    "long test": Sample(0, ("upgrade", "qemu")),
}  # fmt: skip


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


def sampled(name: str) -> tuple[str, ...]:
    """The parts of a test that this run executes."""
    return SAMPLES[name].of(name, seed())


def only_if_sampled(name: str, part: str) -> pytest.MarkDecorator:
    """A mark that skips the test unless this run executes this part."""
    return pytest.mark.skipif(
        part not in sampled(name),
        reason=f"not sampled for {seed()[:12]}: `make test-all`, or CLUSTERCTL_SAMPLE=all",
    )


def report() -> list[str]:
    """A line for each sample: the parts that this run executes, and those that it leaves out."""
    lines = [f"sampled by {seed()[:12]} (CLUSTERCTL_SAMPLE=all executes everything):"]
    for name, sample in SAMPLES.items():
        chosen = sampled(name)
        left = [part for part in sample.parts if part not in chosen]
        lines.append(f"  {name}: {', '.join(chosen) or 'none'}; not {', '.join(left) or 'any'}")
    return lines
