"""The operator's cache of a cluster. The machines hold the truth; this may be lost."""

from __future__ import annotations

from provision.cluster import Settings
from provision.state.local import Cache


def cache_of(given: Settings) -> Cache:
    """The cache that the inventory names: a directory of the operator's own, or a shared one.

    Raises:
        MachinesError: it is in S3, and there are no credentials.
    """
    if not given.state:
        return Cache(given.name, given.inventory)
    from provision.state.s3 import SharedCache  # noqa: PLC0415  boto3 takes half a second

    return SharedCache(given)
