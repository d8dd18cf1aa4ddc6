"""Snapshots of etcd that the masters take, and where copies of them go."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from provision.model.base import Model


class Backup(Model):
    """Snapshots that the masters take by themselves."""

    enabled: bool = Field(default=True, description="every master takes snapshots of etcd")
    hours: int = Field(default=6, ge=1, le=168, description="time between two snapshots, in hours")
    keep: int = Field(default=12, ge=1, description="number of snapshots that each master keeps")
    days: int = Field(
        default=30,
        ge=1,
        description="a snapshot is removed after this number of days; the newest one is kept",
    )
    recipients: tuple[str, ...] = Field(
        default=(),
        description="public keys of age whose owners can decrypt snapshots, beside the cluster's "
        "own key",
        examples=[["age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq"]],
    )
    to: str = Field(
        default="",
        description="where masters copy their snapshots: `ssh://USER@HOST/DIRECTORY` or "
        "`s3://BUCKET/PREFIX`; empty: snapshots stay on the masters",
        examples=["ssh://backup@192.0.2.9/srv/snapshots"],
    )
    ssh_key: Path | None = Field(
        default=None,
        description="private key file for `ssh://`; every master gets a copy",
        examples=["~/.ssh/id_backup"],
    )
    ssh_host_key: str = Field(
        default="",
        description="public host key of the host in `ssh://`",
        examples=[
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kYg7Oq4Nn3b8m2uFZ1eYpF9w7yq2nq7m4T1m0zYbR"
        ],
    )
    s3_endpoint: str = Field(
        default="",
        description="URL of an S3 service that is not Amazon's; empty: Amazon's, in `s3_region`",
        examples=["https://s3.example.org"],
    )
    s3_region: str = Field(default="us-east-1", description="region of the bucket")
    s3_access_key: str = Field(
        default="",
        repr=False,
        description="access key that may put, get, list and delete objects below the prefix",
        examples=["AKIAIOSFODNN7EXAMPLE"],  # pragma: allowlist secret
    )
    s3_secret_key: str = Field(
        default="",
        repr=False,
        description="secret of the access key; `os.environ[...]` keeps it out of the file",
    )
