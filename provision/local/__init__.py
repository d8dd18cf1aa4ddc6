"""The operator's computer: the cache of a cluster, keys, logs. The masters have the originals."""

from __future__ import annotations

from provision.local.cache import Cache
from provision.model.cluster import Inventory


def cache_of(given: Inventory) -> Cache:
    """Give the cache that the inventory names: a directory on this computer, or a shared state.

    Raises:
        MachinesError: the state is in S3, but there are no credentials.
    """
    if not given.state:
        return Cache(given.name, given.inventory)
    from provision.local.s3 import SharedCache  # noqa: PLC0415  boto3 takes half a second

    return SharedCache(given)
