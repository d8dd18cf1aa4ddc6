"""Removal of the labs of integration tests that were killed.

Each of these tests keeps the files of its lab in clusterctl/labs/ID below pytest's temporary
directory. A run notes that directory in pytest's cache, so a killed run's labs can be found.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from provision.machines import container_engine
from provision.machines.lab_names import LAB_LABEL, volumes_of

CACHE = Path(__file__).parents[2] / ".pytest_cache" / "d" / "labs"


def note(config: pytest.Config) -> None:
    """Note where this run's labs have their files. Processes of pytest-xdist keep theirs there."""
    directory = config._tmp_path_factory.getbasetemp()
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / directory.name).write_text(str(directory))


def remove(only: str = "*") -> None:
    """Remove the labs that runs of this checkout have left. `only`: the name of a run's note."""
    for noted in CACHE.glob(only):
        for lab in Path(noted.read_text()).glob("**/clusterctl/labs/*"):
            if lab.is_dir():
                _remove(lab.name)
                shutil.rmtree(lab)
        noted.unlink()


def _remove(identity: str) -> None:
    engine = container_engine.working()
    engine.remove_containers(engine.containers(f"{LAB_LABEL}={identity}"))
    if volumes := volumes_of(identity, engine.volumes()):
        engine.run("volume", "rm", *volumes)
    if identity in {network.name for network in engine.networks()}:
        engine.run("network", "rm", identity)
