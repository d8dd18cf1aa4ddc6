"""Copy the operator's own images from one master's registry to others, through this computer.

The registries are read-only over the network: images come in over SSH.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from provision.apply.checked import failure, trimmed
from provision.apply.engine import Engine
from provision.apply.programs import program
from provision.model import paths
from provision.model.errors import Failure, PhaseError
from provision.plan.user_images import UserImage

_STEP = "copy images"


def copy_images(phase: str, engine: Engine, missing: Mapping[str, Sequence[UserImage]]) -> None:
    """Copy images to the registries that lack them. The copy may run again.

    Args:
        missing: master -> the images that it lacks.

    Raises:
        PhaseError: with every master that could not send or store them.
    """
    # Read the images once for all masters that lack the same images.
    targets: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for name, images in missing.items():
        for source in sorted({image.source for image in images}):
            wanted = tuple(image.reference for image in images if image.source == source)
            targets[source, wanted].append(name)
    failures: list[Failure] = []
    with tempfile.TemporaryDirectory(prefix="clusterctl-") as scratch:
        archive = Path(scratch) / "images.tar"
        for (source, references), names in targets.items():
            with archive.open("wb") as file:
                code, error = engine.receive(
                    engine.cluster.machine(source), sending(references), file.write
                )
            if code:
                cause = trimmed(error) or f"exit status {code}"
                failures.append(Failure(source, _STEP, cause))
                continue
            for name in names:
                machine = engine.cluster.machine(name)
                answer = engine.stream(machine, storing(), archive)
                if problem := failure(answer, machine, _STEP):
                    failures.append(problem)
    if failures:
        raise PhaseError(phase, failures)


def sending(references: Sequence[str], registry: str = paths.REGISTRY) -> str:
    """Give the program that prints a tar of images."""
    images = " ".join(references)
    return program("images", storage=f"{registry}/{paths.REGISTRY_STORAGE}", images=images)


def storing(registry: str = paths.REGISTRY) -> str:
    """Give the program that stores a tar of images."""
    storage = f"{registry}/{paths.REGISTRY_STORAGE}"
    return f"install -d -m 0755 {storage} && tar -xf - -C {storage}"
