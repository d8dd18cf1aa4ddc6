"""The operator who changes a cluster at this moment, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

BEAT = 10  # seconds between two signs of life
LIFE = 60  # seconds without a sign of life, after which the lock is free


@dataclass(frozen=True)
class Holder:
    """The operator who holds a cluster's lock, and the command that runs.

    Attributes:
        command: as it was typed, `clusterctl up inventories/ha.py`.
        began: seconds since 1970, by the machine's clock.
        since, silent: seconds since the command began, and since its last sign of life.
        computer: where the process runs; `provision.local.operators` tells computers apart.
    """

    user: str
    host: str
    pid: int
    command: str
    began: int = 0
    since: int = 0
    silent: int = 0
    computer: str = ""

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.began, UTC)
        return (
            f"{self.user}@{self.host} (process {self.pid}): {self.command}, "
            f"begun {began:%Y-%m-%d %H:%M:%S} UTC, {_span(self.since)} ago, "
            f"last heard of {_span(self.silent)} ago"
        )


def _span(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
