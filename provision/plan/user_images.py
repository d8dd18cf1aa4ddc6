"""The images that the operator pushed. Each master's registry should have all of them. Pure.

Nodes ask the masters' registries in turn. Under AlwaysPullImages a container cannot restart if the
registry that answers lacks its image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.observed import Observed


@dataclass(frozen=True)
class UserImage:
    """An image that a master's registry lacks.

    Attributes:
        reference: `registry.example.com/team/app:1.0`.
        source: the name of a master that has it.
    """

    reference: str
    source: str


def missing_images(
    cluster: Cluster, observed: Mapping[str, Observed]
) -> dict[str, tuple[UserImage, ...]]:
    """Give master -> the images that it lacks and another master has. Both masters answer."""
    found = _found(cluster, observed)
    return {
        name: missing
        for name in _masters(cluster, observed)
        if (
            missing := tuple(
                UserImage(reference, next(iter(masters)))
                for reference, masters in sorted(found.items())
                if name not in masters
            )
        )
    }


def image_problems(cluster: Cluster, observed: Mapping[str, Observed]) -> tuple[str, ...]:
    """Give a sentence for each image whose content differs between masters.

    clusterctl cannot know which content the operator wants.
    """
    return tuple(
        f"{', '.join(masters)}: their registries have different images with the name {reference}: "
        f"{clusterctl('images', 'push', cluster.inventory, reference)}"
        for reference, masters in sorted(_found(cluster, observed).items())
        if len(set(masters.values())) > 1
    )


def missing_problems(cluster: Cluster, observed: Mapping[str, Observed]) -> tuple[str, ...]:
    """Give a sentence for each master that lacks images."""
    return tuple(
        f"{name}: its registry lacks {', '.join(image.reference for image in images)}: "
        f"{clusterctl('up', cluster.inventory)}"
        for name, images in missing_images(cluster, observed).items()
    )


def _found(cluster: Cluster, observed: Mapping[str, Observed]) -> dict[str, dict[str, str]]:
    """Give reference -> master -> digest."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in _masters(cluster, observed):
        for reference, digest in observed[name].user_images.items():
            found[reference][name] = digest
    return found


def _masters(cluster: Cluster, observed: Mapping[str, Observed]) -> Iterator[str]:
    for machine in cluster.masters:
        if machine.name in observed and observed[machine.name].reachable:
            yield machine.name
