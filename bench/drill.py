"""`make drill`: every fault several times, and etcd's leader cut off twenty times.

Runs `clusterctl drill` and writes a section of bench/RESULTS.md. Rows of faults that did not run
stay as they are. Exit code 11: a write was lost, or the cluster did not recover from a fault.

    .venv/bin/python bench/drill.py [--runs 3] [--cuts 20] [--inventory bench/inventories/bench.py]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import results

from provision.drill.drill import NAMES

HERE = Path(__file__).parent
CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
HEADING = "## Drill"
COLUMNS = ("endpoint", "loopback", "healed")


def drill(inventory: Path, runs: int, *only: str) -> list[dict[str, Any]]:
    """The results of one drill. Its progress goes to the terminal."""
    chosen = [word for name in only for word in ("--only", name)]
    done = subprocess.run(
        [CLUSTERCTL, "drill", inventory, f"--runs={runs}", "-o", "json", *chosen],
        stdout=subprocess.PIPE,
        check=False,
    )
    if not done.stdout:
        sys.exit(done.returncode)
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


def row(name: str, seen: list[dict[str, Any]]) -> str:
    cells = []
    for column in COLUMNS:
        values = [r[column] for r in seen if r[column] is not None]
        worst = f"{statistics.median(values):.1f} s, {max(values):.1f} s" if values else ""
        cells.append(worst)
    survived = sum(r["survived"] for r in seen)
    writes, lost = sum(r["acknowledged"] for r in seen), sum(len(r["lost"]) for r in seen)
    given_up = sum(r["given_up"] for r in seen)
    cells.append(f"{survived} of {len(seen)}")
    cells.append(f"{lost} of {writes}" if writes else "")
    cells.append(str(given_up) if given_up else "")
    return f"| {name} | {' | '.join(cells)} | {datetime.now(UTC):%Y-%m-%d} |"


def rows(seen: list[dict[str, Any]]) -> list[str]:
    """A row for each fault: of this run, or else of an earlier run."""
    before = results.sections().get(HEADING, "")
    table = {m[1]: m[0] for m in re.finditer(r"^\| ([a-z-]+) \| .*$", before, flags=re.M)}
    for name in dict.fromkeys(result["fault"] for result in seen):
        table[name] = row(name, [r for r in seen if r["fault"] == name])
    return [table[name] for name in NAMES if name in table]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--inventory", type=Path, default=HERE / "inventories" / "bench.py")
    parser.add_argument("--only", action="append", default=[])
    arguments = parser.parse_args()
    seen = drill(arguments.inventory, arguments.runs, *arguments.only)
    if arguments.cuts:
        seen += drill(arguments.inventory, arguments.cuts, "leader-cut-off")
    results.put(
        HEADING,
        "\n".join(
            [
                f"{os.cpu_count()} cores, {platform.machine()}, labs like {arguments.inventory.name};",
                "made by `bench/drill.py`, which measures some faults, or all. A write every 100 ms by",
                "the API's address, and another by a node's loopback proxy. Seconds from the fault",
                "until writes worked again (median, worst); from its end until all was well. Given up:",
                "acknowledged while no other machine could have them. What each fault does:",
                "`docs/drill.md`.",
                "",
                "| fault | writes back | by loopback | all well | survived | writes lost | given up | when |",
                "|---|---|---|---|---|---|---|---|",
                *rows(seen),
            ]
        ),
    )
    if not all(result["survived"] for result in seen):
        sys.exit(11)


if __name__ == "__main__":
    main()
