"""The description that is part of a snapshot of etcd."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Manifest(BaseModel):
    """The description of a snapshot.

    Attributes:
        fingerprint: of the cluster's Kubernetes authority.
        machine: the machine on which it was made.
        revision, keys: of etcd's key space, at the moment of the snapshot.
        size, sha256: of etcd.db, bytes and hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1]
    cluster: str
    fingerprint: str
    machine: str
    created: AwareDatetime
    kubernetes: str
    etcd: str
    revision: int
    keys: int
    size: int
    sha256: str

    @property
    def age(self) -> str:
        """How long ago the snapshot was made, as text for people: `3 hours`."""
        seconds = max((datetime.now(UTC) - self.created).total_seconds(), 0)
        for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
            if seconds >= 2 * length:
                return f"{seconds / length:.0f} {unit}"
        return f"{seconds:.0f} seconds"
