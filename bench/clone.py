"""From a fresh clone to a verified cluster, with files from a local server of limited bandwidth.

The server (tests/publishers.py) has the publishers' paths and registries, as a mirror. Its files are
the programs in this computer's cache, so the clone's catalogue gets their hashes; that, and making
the files, is not measured. The machines' image, and Python's packages in pip's cache, are there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from provision.artifacts import go
from tests import publishers
from tests.publishers import Link, Publishers

RATE = 100_000_000 / 8  # bytes per second
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Measured:
    """Seconds of the parts, and bytes that the server sent."""

    environment: float
    up: float
    fetch: float
    phases: dict[str, float]
    sent: int

    @property
    def whole(self) -> float:
        return self.environment + self.up


def made(runs: int) -> list[Measured]:
    """Measure it several times, each with a new clone and an empty cache."""
    with tempfile.TemporaryDirectory(prefix="clusterctl-bench-") as scratch:
        arch = go.machine_arch()
        programs, images = publishers.programs_of_this_computer(arch)
        release = publishers.release(programs, arch, Path(scratch), images, compress=True)
        return [_one(release) for _ in range(runs)]


def _one(release: publishers.Release) -> Measured:
    with tempfile.TemporaryDirectory(prefix="clusterctl-clone-") as scratch:
        home = Path(scratch)
        clone = home / "clusterctl"
        server = Publishers(home, dict(release.files), release.storage, Link(RATE))
        try:
            began = time.monotonic()
            _run("git", "clone", "--quiet", ROOT, clone)
            cloned = time.monotonic() - began
            publishers.replace_hashes(clone, release.hashes)
            inventory = _inventory(clone, server)
            began = time.monotonic()
            _run(clone / "scripts" / "setup", "lab")
            environment = cloned + time.monotonic() - began
            return _up(clone, home, inventory, server, environment)
        finally:
            server.close()


def _up(
    clone: Path, home: Path, inventory: Path, server: Publishers, environment: float
) -> Measured:
    command, given = clone / ".venv/bin/clusterctl", publishers.users_variables(home)
    try:
        began = time.monotonic()
        done = _run(command, "up", inventory, "--yes", "-o", "json", env=given)
        up = time.monotonic() - began
        fetched = re.search(r"^fetch: done in ([\d.]+) s$", done.stderr, flags=re.M)
        phases = json.loads(done.stdout)["seconds"]
        fetch = float(fetched[1]) if fetched else 0.0
        return Measured(environment, up, fetch, phases, server.link.sent)
    finally:
        _run(command, "down", inventory, "--yes", env=given)


def _inventory(clone: Path, server: Publishers) -> Path:
    base = server.url(_own_address())
    settings = {
        "name": "bench-clone",
        "machines": "lab",
        "api": {"vip": "auto"},
        "artifacts": {"source": "mirror", "mirror": base},
        "registry_mirrors": {"registry.k8s.io": [base], "docker.io": [base]},
    }
    path = clone / "inventories" / "bench.py"
    path.write_text(
        f"cluster = {settings!r}\nmasters = ['m1', 'm2', 'm3']\nworkers = ['w1', 'w2']\n"
    )
    return path


def _own_address() -> str:
    """An address of this computer that machines of the lab reach too. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def _run(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in (env or os.environ).items() if name != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=given)
    if done.returncode != 0:
        sys.exit(
            f"{shutil.which(words[0]) or words[0]}: exit {done.returncode}\n{done.stderr[-3000:]}"
        )
    return done
