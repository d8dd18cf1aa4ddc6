"""Find an inventory's machines: every command that connects to machines begins with it."""

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
    """Give the names of machines that do not exist.

    A machine that exists but does not run is unreachable, not absent.
    """
    # A cloud's `missing` also checks the inventory and other things than machines.
    if not isinstance(source, Cloud) and not source.missing(draft):
        return ()
    return tuple(s.name for s in source.status(draft) if s.state == "absent")


def locate(source: MachineSource, draft: Draft) -> tuple[Cluster, Cache, Path]:
    """Give the cluster with its machines' addresses, its cache, and the file of their host keys.

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
    """Add the cluster's bucket. Snapshots are copied there unless the inventory names a place."""
    ec2 = draft.ec2.model_copy(update={"bucket": bucket})
    backup = draft.backup
    if not backup.to:
        there = {"to": f"s3://{bucket}/{BACKUPS}", "s3_region": ec2.region}
        backup = backup.model_copy(update={**there, "s3_endpoint": ec2.endpoint})
    return draft.model_copy(update={"ec2": ec2, "backup": backup})
