"""Parallel clusters: which tests share a cluster, which cluster begins first, and the progress.

Each process of pytest-xdist is a lane. There is one lane for every two cores (`LANES` in the
Makefile). A lane runs all tests of one cluster, in the order of the files, and then takes the next
cluster. The clusters that take longest begin first.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# A folder or file of tests with its own cluster -> how long its tests take, in seconds, roughly.
CLUSTERS = {
    "shared": 900,
    "masters": 500,
    "strict": 280,
    "ec2": 280,
    "single": 270,
    "external": 220,
    "lifecycle": 120,
}
OTHERS = 600  # seconds; tests that a run may leave out take long
SAMPLE = "sample"  # key of what a lane reports: lines about the long tests


def cluster_of(nodeid: str) -> str:
    """The cluster that a test uses: the name of its folder, or else of its file."""
    path = nodeid.partition("::")[0].removeprefix("tests/e2e/")
    return path.partition("/")[0].removesuffix("_test.py")


def arrange(items: list[pytest.Item]) -> None:
    """Put the tests of the clusters that take longest first."""
    items.sort(key=lambda item: -CLUSTERS.get(cluster_of(item.nodeid), OTHERS))


class Lanes(LoadScopeScheduling):
    """Gives all tests of a cluster to one worker, and takes clusters in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        # By default the scheduler begins with the clusters that have most tests.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return cluster_of(nodeid)


class Progress:
    """Prints a line when a test ends, and at the end how long each cluster took.

    Only the process that starts the lanes uses it. If a run is cut off, its output is complete up
    to then.
    """

    def __init__(self, plugins: pytest.PytestPluginManager) -> None:
        self.plugins = plugins
        self.began = time.monotonic()
        self.seconds: Counter[str] = Counter()
        self.shown: set[str] = set()
        self.sample: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        path, _, name = report.nodeid.partition("::")
        if not path.startswith("tests/e2e"):
            return
        path = path.removeprefix("tests/e2e/")
        self.seconds[path] += report.duration
        if report.when != "call" and report.duration < 5 and not report.failed:
            return
        step = "" if report.when == "call" else f" ({report.when})"
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        self._line(
            f"{minutes:02}:{seconds:02} {report.outcome} {report.duration:5.1f} s  {path} {name}{step}"
        )
        # A failed fixture fails all its tests with the same text.
        if report.failed and report.longreprtext not in self.shown:
            self.shown.add(report.longreprtext)
            self._line(report.longreprtext[-6000:])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController) -> None:
        # A process that has died reports nothing.
        self.sample = getattr(node, "workeroutput", {}).get(SAMPLE, self.sample)

    def pytest_terminal_summary(self) -> None:
        for line in self.sample:
            self._line(line)
        for path, seconds in self.seconds.most_common():
            self._line(f"{seconds:6.0f} s  {path}")

    def _line(self, text: str) -> None:
        reporter = self.plugins.get_plugin("terminalreporter")
        reporter.ensure_newline()
        reporter.write_line(text, flush=True)
