"""An inventory's machines, found: what every command that connects does first."""

from __future__ import annotations

from pathlib import Path

from provision import inventory
from provision.inventory import Draft
from provision.local import cache_of, known_hosts
from provision.local.cache import Cache
from provision.machines import Cloud, MachineSource
from provision.model.backup_place import BACKUPS
from provision.model.cluster import Cluster


def absent(source: MachineSource, draft: Draft) -> tuple[str, ...]:
    """Names of machines that were never made.

    One that was made and does not run is unreachable, which is a state like others.
    """
    # A cloud's `missing` judges the inventory and much besides machines.
    if not isinstance(source, Cloud) and not source.missing(draft):
        return ()
    return tuple(s.name for s in source.status(draft) if s.state == "absent")


def locate(source: MachineSource, draft: Draft) -> tuple[Cluster, Cache, Path]:
    """The cluster with its machines' addresses, its cache, and the file of their host keys.

    Raises:
        InventoryError: the addresses do not fit together.
    """
    name = None
    if isinstance(source, Cloud):
        name = source.api_name(draft)
        draft = _with_bucket(draft, source.bucket(draft))
    cluster = inventory.complete(draft, source.locate(draft), source.vip(draft), name)
    cache = cache_of(cluster)
    return cluster, cache, known_hosts.write((m.ssh for m in cluster.machines), cache.known_hosts)


def _with_bucket(draft: Draft, bucket: str) -> Draft:
    """Say which bucket the cluster has; snapshots are copied there if the file names no other place."""
    ec2 = draft.ec2.model_copy(update={"bucket": bucket})
    backup = draft.backup
    if not backup.to:
        there = {"to": f"s3://{bucket}/{BACKUPS}", "s3_region": ec2.region}
        backup = backup.model_copy(update={**there, "s3_endpoint": ec2.endpoint})
    return draft.model_copy(update={"ec2": ec2, "backup": backup})
