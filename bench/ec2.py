"""The time that calls to AWS take. moto's server on this computer stands in for AWS."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from provision import inventory
from provision.local.progress import Silent
from provision.machines.ec2.source import Ec2
from tests.aws import CREDENTIALS, moto_server, proxy_of
from tests.e2e.ec2_lab import ec2_lab

INVENTORY = Path(__file__).parent / "inventories" / "ec2.py"
NAME = "bench-ec2"


def made(runs: int, group: int) -> tuple[list[float], int]:
    """Seconds from an empty account to the request for the last instance; and calls of one run."""
    times, calls = [], 0
    with tempfile.TemporaryDirectory() as folder, moto_server(folder) as moto:
        for run in range(runs):
            moto.reset()
            with (
                proxy_of(moto) as proxy,
                patch.dict(
                    os.environ,
                    **CREDENTIALS,
                    XDG_STATE_HOME=f"{folder}/{run}",
                    BENCH_GROUP=str(group),
                    BENCH_EC2_ENDPOINT=proxy.url,
                ),
            ):
                began = time.monotonic()
                Ec2().make(inventory.read(INVENTORY), Silent())
                times.append(time.monotonic() - began)
                calls = len(proxy.calls)
    return times, calls


def noop(runs: int, clusterctl: Callable[..., tuple[str, float]]) -> list[float]:
    """Seconds of an `up` with no change to make. Lab machines stand in for the instances."""
    network = inventory.read(INVENTORY).ec2.network
    with (
        tempfile.TemporaryDirectory() as folder,
        ec2_lab(Path(folder), network, NAME) as lab,
        patch.dict(
            os.environ,
            **lab.operator,
            XDG_STATE_HOME=f"{folder}/state",
            BENCH_EC2_ENDPOINT=lab.endpoint,
        ),
    ):
        clusterctl("up", str(INVENTORY), "--yes")
        return [clusterctl("up", str(INVENTORY), "--yes")[1] for _ in range(runs)]


def ratio(few: list[float], many: list[float]) -> float:
    return statistics.median(many) / statistics.median(few)
