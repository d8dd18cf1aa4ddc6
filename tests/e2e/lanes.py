"""Clusters side by side: which tests share one, which is begun first, and what is printed meanwhile.

`-n 2 --dist loadgroup` makes two lanes. A lane executes all tests of one cluster, in the order of
the files, and then takes the next cluster; so the longest are begun first.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# A folder or file of tests that has a cluster -> seconds that it takes, roughly.
CLUSTERS = {
    "shared": 900,
    "masters": 500,
    "strict": 280,
    "ec2": 280,
    "single": 270,
    "external": 220,
    "lifecycle": 120,
}
OTHERS = 600  # seconds: those that a run may leave out take long


def cluster_of(item: pytest.Item) -> str:
    """Name the cluster that a test uses: its folder, else its file."""
    return item.path.relative_to(HERE).parts[0].removesuffix("_test.py")


def arrange(items: list[pytest.Item]) -> None:
    """Give each test the group of its cluster, and put the longest groups first."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        item.add_marker(pytest.mark.xdist_group(cluster_of(item)))
    ours.sort(key=lambda item: -CLUSTERS.get(cluster_of(item), OTHERS))
    places = [n for n, item in enumerate(items) if item.path.is_relative_to(HERE)]
    for place, item in zip(places, ours, strict=True):
        items[place] = item


class Progress:
    """Prints a line as each test ends, and in the end how long each cluster took.

    Only the process that starts the lanes has it. A run that is cut off has said all until then.
    """

    def __init__(self, plugins: pytest.PytestPluginManager) -> None:
        self.plugins = plugins
        self.began = time.monotonic()
        self.seconds: Counter[str] = Counter()
        self.shown: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        path, _, name = report.nodeid.partition("::")
        if not path.startswith("tests/e2e"):
            return
        name = name.rpartition("@")[0] or name
        path = path.removeprefix("tests/e2e/")
        self.seconds[path] += report.duration
        if report.when != "call" and report.duration < 5 and not report.failed:
            return
        step = "" if report.when == "call" else f" ({report.when})"
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        self._line(
            f"{minutes:02}:{seconds:02} {report.outcome} {report.duration:5.1f} s  {path} {name}{step}"
        )
        # A fixture that failed fails each of its tests, with the same text.
        if report.failed and report.longreprtext not in self.shown:
            self.shown.add(report.longreprtext)
            self._line(report.longreprtext[-6000:])

    def pytest_terminal_summary(self) -> None:
        for path, seconds in self.seconds.most_common():
            self._line(f"{seconds:6.0f} s  {path}")

    def _line(self, text: str) -> None:
        reporter = self.plugins.get_plugin("terminalreporter")
        reporter.ensure_newline()
        reporter.write_line(text, flush=True)
