"""The place for copies of snapshots: a directory that SSH reaches, or an S3 bucket. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provision.model.settings.backup import Backup

# The parts of a place become words of shell programs, and of sftp's and curl's configuration. No
# other characters are allowed.
_SSH = re.compile(r"ssh://(\w[\w.-]*)@(\w[\w.-]*)(?::(\d{1,5}))?((?:/[\w.-]+)+)", re.ASCII)
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[\w.-]+)*)", re.ASCII)

BACKUPS = "backups"  # in the bucket of a cluster that has one


@dataclass(frozen=True)
class SshPlace:
    """A directory on a machine outside the cluster."""

    user: str
    host: str
    port: int
    directory: str

    @property
    def shown(self) -> str:
        return f"{self.user}@{self.host}:{self.directory}"

    @property
    def known_as(self) -> str:
        """The host's name as known_hosts writes it."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


@dataclass(frozen=True)
class S3Place:
    """The objects of a bucket whose names begin with a prefix.

    Attributes:
        endpoint: URL of the service; the bucket is the first part of the path.
        prefix: empty, or ends with a slash.
    """

    endpoint: str
    bucket: str
    prefix: str

    @property
    def shown(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def place(backup: Backup) -> SshPlace | S3Place | None:
    """The place that `backup.to` names; None: it names none, or is not well-formed."""
    if match := _SSH.fullmatch(backup.to):
        user, host, port, directory = match.groups()
        return SshPlace(user, host, int(port or 22), directory)
    if match := _S3.fullmatch(backup.to):
        bucket, prefix = match.groups()
        endpoint = backup.s3_endpoint or f"https://s3.{backup.s3_region}.amazonaws.com"
        return S3Place(endpoint.rstrip("/"), bucket, f"{prefix[1:]}/" if prefix else "")
    return None
