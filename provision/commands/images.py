"""A user's own images, from the operator's container engine to every master's registry."""

from __future__ import annotations

import tempfile
from pathlib import Path

from provision.apply.checked import failure
from provision.apply.session import Session
from provision.artifacts.oci import layout_from_archive
from provision.desired.components.containerd import registries
from provision.machines import container_engine
from provision.model import paths
from provision.model.errors import ArtifactError, Failure, PhaseError


def canonical(reference: str) -> str:
    """An image's full name, as container engines complete it.

    `app:1` is `docker.io/library/app:1`; a name whose first part has a dot, a colon or is
    `localhost` names its registry itself.
    """
    first, slash, rest = reference.partition("/")
    if not slash:
        reference = f"docker.io/library/{reference}"
    elif first == "docker.io" and "/" not in rest:
        reference = f"docker.io/library/{rest}"
    elif "." not in first and ":" not in first and first != "localhost":
        reference = f"docker.io/{reference}"
    last = reference.rsplit("/", 1)[1]
    return reference if ":" in last else f"{reference}:latest"


def push_image(session: Session, image: str, archive: Path | None) -> tuple[str, ...]:
    """Copy an image to the registries of all masters; nodes pull it from there under its own name.

    Args:
        image: its name in the operator's container engine, and in the cluster.
        archive: take the image from this file, written by `podman save` or `docker save`.

    Returns:
        Names of the masters that have the image now.

    Raises:
        ArtifactError: the image does not exist, or nodes do not pull images of its registry from the
            masters.
        PhaseError: a master could not store it.
    """
    reference = canonical(image)
    host = reference.split("/", 1)[0]
    if host not in registries(session.cluster):
        message = f"nodes do not pull images of {host} from the masters"
        raise ArtifactError(
            message,
            hint=f'add it to the inventory and run up: "registry_mirrors": {{"{host}": []}}',
        )
    masters = session.cluster.masters
    failures: list[Failure] = []
    with (
        session.progress.phase("images", reference, tuple(m.name for m in masters)),
        tempfile.TemporaryDirectory(prefix="clusterctl-") as scratch,
    ):
        if archive is None:
            archive = Path(scratch) / "image.tar"
            container_engine.working().save(image, archive)
        layout = layout_from_archive(archive, reference, Path(scratch) / "layout.tar")
        for machine in masters:
            answer = session.engine.stream(machine, f"tar -xf - -C {paths.REGISTRY}", layout)
            problem = failure(answer, machine, "store the image")
            failures += [problem] if problem else []
            session.progress.done(machine.name, failed=problem is not None)
    if failures:
        raise PhaseError("images", failures)
    return tuple(m.name for m in masters)
