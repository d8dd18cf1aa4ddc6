"""The whole drill: make a lab, cause faults, remove the lab."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from provision import inventory
from provision.drill import copy, interruption
from provision.drill.faults import FAULTS
from provision.drill.measure import Result, measure
from provision.drill.runs import run_clusterctl
from provision.drill.site import open_site
from provision.local.progress import Progress
from provision.local.runlog import RunLog
from provision.model.commands import clusterctl
from provision.model.errors import ClusterctlError

# This fault creates the lab's cluster, so it comes first.
KILLED = "killed"
NAMES = (KILLED, *(fault.name for fault in FAULTS))


def drill(
    path: Path,
    names: Collection[str],
    runs: int,
    progress: Progress,
    log: RunLog,
) -> tuple[Result, ...]:
    """Make a lab with the machines of an inventory, cause faults, and remove the lab.

    If the cluster does not survive a fault, the drill keeps the lab for inspection.

    Args:
        names: names of the faults, from `NAMES`.
        runs: how often each fault happens. The moments of the kills differ between runs.

    Raises:
        InventoryError: the inventory is wrong.
        UnhealthyError: the lab's cluster cannot be created.
    """
    lab = copy.write(inventory.read(path))
    results: list[Result] = []
    for seed in range(1, runs + 1) if KILLED in names else ():
        run_clusterctl("down", lab, "--yes").succeeded()
        results.append(killed(lab, seed, progress))
    faults = [fault for fault in FAULTS if fault.name in names]
    if faults:
        with progress.phase("lab", "a cluster like yours", (str(lab),)):
            run_clusterctl("up", lab, "--yes").succeeded()
        with tempfile.TemporaryDirectory() as folder:
            site = open_site(lab, Path(folder) / "kubeconfig")
            site.make_namespace()
            for fault in faults * runs:
                if fault.needs(site.cluster):
                    results.append(measure(site, fault, progress, log).result)
                else:
                    progress.note(f"{fault.name}: this cluster is too small to survive it")
    if all(result.survived for result in results):
        run_clusterctl("down", lab, "--yes").succeeded()
        lab.unlink()
    else:
        progress.note(f"the lab is still there: {clusterctl('status', lab)}")
        progress.note(f"when you have seen enough: {clusterctl('down', lab, '--yes')}")
    return tuple(results)


def killed(lab: Path, seed: int, progress: Progress) -> Result:
    """Create a cluster with an `up` that is killed in each of its phases and run again."""
    with progress.phase(KILLED, "kill -9 of `up` in every phase; `up` again", (str(lab),)):
        result = Result(KILLED, "up")
        try:
            phases, last = interruption.kill_in_every_phase("up", lab, seed, "--yes")
            last.succeeded()
            interruption.finished(lab)
            result = Result(KILLED, "up", seen=f"seed {seed}: {', '.join(phases)}")
        except ClusterctlError as error:
            result = Result(KILLED, "up", problem=f"seed {seed}: {error.message}")
        progress.done(str(lab), result.problem, failed=not result.survived)
    return result
