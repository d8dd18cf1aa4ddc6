"""Snapshots of etcd that the masters take, and where copies of them go."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from provision.model.base import Model


class Backup(Model):
    """Snapshots that the masters take by themselves."""

    enabled: bool = Field(default=True, description="every master takes snapshots of etcd")
    hours: int = Field(default=6, ge=1, le=168, description="between two snapshots of a master")
    keep: int = Field(default=12, ge=1, description="how many snapshots of a master are kept")
    days: int = Field(
        default=30, ge=1, description="older ones are removed too; the newest one never is"
    )
    recipients: tuple[str, ...] = Field(
        default=(),
        description="keys of age, `age1...`, that open snapshots beside the cluster's own",
    )
    to: str = Field(
        default="",
        description="where copies go: `ssh://user@host/directory`, or `s3://bucket/prefix`",
    )
    ssh_key: Path | None = Field(
        default=None, description="private key for `ssh://`; every master gets it"
    )
    ssh_host_key: str = Field(
        default="", description="that host's public key, `ssh-ed25519 AAAA...`"
    )
    s3_endpoint: str = Field(
        default="", description="URL of an S3 that is not Amazon's; else the region's own"
    )
    s3_region: str = Field(default="us-east-1", description="of the bucket")
    s3_access_key: str = Field(
        default="", repr=False, description="may put, get, list and delete below the prefix"
    )
    s3_secret_key: str = Field(
        default="",
        repr=False,
        description="its secret, as text: `os.environ[...]` keeps it out of the file",
    )
