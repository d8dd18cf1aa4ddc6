"""Artifacts as values: pins of the catalogue, and artifacts that a source made ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Pin:
    """One release file of one architecture.

    Attributes:
        name: the artifact, `kubernetes/kubelet`.
        version: without a leading `v`.
        arch: `amd64` or `arm64`.
        url: at its publisher.
        sha256: of the file at `url`.
        member: path inside the archive at `url`; None if the file is the executable itself.
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
        pin: the SHA-256 that identifies the artifact: of `local`, or of the release file if
            machines download it. A machine's record has it.
        local: the file to install, on the operator's computer; None: machines download it.
        url: the address for the machines' download, if `local` is None.
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
    """All artifacts of a cluster, made ready by one source.

    Attributes:
        source: the source that was used; never `auto`.
        items: (name, arch) -> Ready.
    """

    source: str
    items: Mapping[tuple[str, str], Ready]

    def get(self, name: str, arch: str) -> Ready:
        """Give an artifact.

        Raises:
            KeyError: the set was made without it.
        """
        return self.items[(name, arch)]


def mirrored(base: str, url: str) -> str:
    """Give the URL at a mirror: `https://HOST/PATH` -> `BASE/HOST/PATH`."""
    parts = urlsplit(url)
    return f"{base.rstrip('/')}/{parts.netloc}{parts.path}"
