"""The catalogue: every file that clusterctl installs, with version, publisher's URL and SHA-256."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from provision.artifacts.model import Pin
from provision.model.errors import ArtifactError

ARCHES = ("amd64", "arm64")
DATA = Path(__file__).with_name("catalogue.yaml")
BUILD_HINT = (
    '"artifacts": {"source": "build"} in the inventory compiles them from pinned Go modules'
)


_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Archive(_Strict):
    url: str
    members: dict[str, str]
    sha256: dict[str, _Sha256]

    def pin(self, name: str, arch: str) -> tuple[str, str | None]:
        return self.sha256.get(arch, ""), self.members[name]

    @property
    def names(self) -> Iterable[str]:
        return self.members


class _Files(_Strict):
    url: str
    sha256: dict[str, dict[str, _Sha256]]

    def pin(self, name: str, arch: str) -> tuple[str, str | None]:
        return self.sha256[name].get(arch, ""), None

    @property
    def names(self) -> Iterable[str]:
        return self.sha256


_Releases = dict[str, _Archive | _Files]


class Catalogue(_Strict):
    """The file: the releases of each component, and the set of each version of Kubernetes."""

    sets: dict[str, dict[str, str]]
    kubernetes: _Releases
    components: dict[str, _Releases]

    @classmethod
    def read(cls, path: Path = DATA) -> Catalogue:
        """Read a catalogue from its YAML file."""
        return cls.parse(path.read_text())

    @classmethod
    def parse(cls, text: str) -> Catalogue:
        data = yaml.safe_load(text)
        sets, kubernetes = data.pop("sets"), data.pop("kubernetes")
        return cls(sets=sets, kubernetes=kubernetes, components=data)

    @property
    def versions(self) -> tuple[str, ...]:
        """Give the versions of Kubernetes that clusterctl can install."""
        return tuple(self.sets)

    def pins(self, kubernetes: str) -> Mapping[tuple[str, str], Pin]:
        """Give (name, arch) -> pin, for one version of Kubernetes; an unknown `sha256` is empty.

        Raises:
            ArtifactError: the version is not in the catalogue.
        """
        if kubernetes not in self.sets:
            raise ArtifactError(
                f"Kubernetes {kubernetes} is not in the catalogue",
                hint=f"the catalogue has: {', '.join(self.versions)}",
            )
        pins = self._component("kubernetes", kubernetes, self.kubernetes)
        result = {(pin.name, pin.arch): pin for pin in pins}
        for component, version in self.sets[kubernetes].items():
            pins = self._component(component, version, self.components[component])
            result |= {(pin.name, pin.arch): pin for pin in pins}
        return result

    @staticmethod
    def _component(component: str, version: str, releases: _Releases) -> Iterator[Pin]:
        release = releases[version]
        for name in release.names:
            for arch in ARCHES:
                sha256, member = release.pin(name, arch)
                values = {"version": version, "arch": arch, "name": name}
                yield Pin(
                    name=f"{component}/{name}",
                    version=version,
                    arch=arch,
                    url=release.url.format(**values),
                    sha256=sha256,
                    member=member and member.format(**values),
                )


@cache
def catalogue() -> Catalogue:
    """Read the catalogue of this release of clusterctl."""
    return Catalogue.read()


def pins(kubernetes: str) -> tuple[Pin, ...]:
    """Give all pins of one version of Kubernetes, for every architecture.

    Raises:
        ArtifactError: the version is not in the catalogue.
    """
    return tuple(catalogue().pins(kubernetes).values())


def require_checksums(wanted: Iterable[Pin]) -> None:
    """Refuse files without a checksum: they are never downloaded.

    Raises:
        ArtifactError: names every file without a checksum.
    """
    unknown = sorted({f"{pin.name} {pin.version} {pin.arch}" for pin in wanted if not pin.sha256})
    if unknown:
        raise ArtifactError(
            "the catalogue has no SHA-256 for the release file of " + ", ".join(unknown),
            hint=BUILD_HINT,
        )
