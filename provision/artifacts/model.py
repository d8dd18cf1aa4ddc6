"""Artifacts as values: what the catalogue pins, and what a source has made ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pin:
    """One release file of one architecture.

    Attributes:
        name: the artifact, `kubernetes/kubelet`.
        version: without a leading `v`.
        arch: `amd64` or `arm64`.
        url: where its publisher has it.
        sha256: of the file at `url`.
        member: path inside the archive at `url`; None when the file is the executable itself.
    """

    name: str
    version: str
    arch: str
    url: str
    sha256: str
    member: str | None = None


@dataclass(frozen=True)
class Ready:
    """An artifact that can be delivered now.

    Attributes:
        name, version, arch: as in the catalogue; name `images` is the set of images, a tar of
            the registry's storage (its root is `docker/registry/v2`).
        pin: the SHA-256 that identifies it: of the release file when machines download it, of
            `local` otherwise. A machine's record keeps it.
        local: the very file to install, on the operator's machine, or None:
        url: where machines download it from, when `local` is None.
        member: path inside the archive at `url`.
    """

    name: str
    version: str
    arch: str
    pin: str
    local: Path | None = None
    url: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class ArtifactSet:
    """All that a cluster needs, made ready by one source.

    Attributes:
        source: which one it was in the end (`auto` is resolved).
        items: (name, arch) -> Ready.
    """

    source: str
    items: Mapping[tuple[str, str], Ready]

    def get(self, name: str, arch: str) -> Ready:
        """The artifact.

        Raises:
            KeyError: it was not asked for when the set was made.
        """
        return self.items[(name, arch)]
