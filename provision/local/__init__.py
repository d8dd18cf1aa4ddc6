"""The operator's cache of a cluster. The machines hold the truth; this may be lost."""

from __future__ import annotations

from provision.local.cache import Cache
from provision.model.cluster import Inventory


def cache_of(given: Inventory) -> Cache:
    """The cache that the inventory names: a directory of the operator's own, or a shared one.

    Raises:
        MachinesError: it is in S3, and there are no credentials.
    """
    if not given.state:
        return Cache(given.name, given.inventory)
    from provision.local.s3 import SharedCache  # noqa: PLC0415  boto3 takes half a second

    return SharedCache(given)
