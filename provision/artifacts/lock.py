"""A new entry of the catalogue: every file looked at, its publisher's word for it verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from provision.artifacts.catalogue import Catalogue
from provision.artifacts.model import Pin
from provision.artifacts.publishers import PUBLISHERS, Signer
from provision.artifacts.web import Web
from provision.local.progress import Progress
from provision.model.errors import ArtifactError


@dataclass(frozen=True)
class Locked:
    """A file whose SHA-256 is known now.

    Attributes:
        pins: the artifacts that are in it; those of an archive have it in common.
        signed_by: empty where its publisher does not sign; then its checksum is their word.
    """

    pins: tuple[Pin, ...]
    sha256: str
    signed_by: str

    @property
    def url(self) -> str:
        return self.pins[0].url


class Verifier(Protocol):
    def verify(self, url: str, sha256: str, version: str, signer: Signer) -> str:
        """As `signatures.Signatures.verify`."""


def lock(
    known: Catalogue, kubernetes: str, web: Web, signatures: Verifier, progress: Progress
) -> tuple[Locked, ...]:
    """Establish every checksum that `known` lacks for a version of Kubernetes.

    Each file is downloaded and hashed; the hash is compared with the checksum that its publisher
    has beside it; where the publisher signs, the signature is verified. One that is pinned already
    is not looked at.

    Raises:
        ArtifactError: a file is not there, or not what its publisher says. Nothing is returned then.
    """
    missing: dict[str, list[Pin]] = {}
    for pin in known.pins(kubernetes).values():
        if not pin.sha256:
            missing.setdefault(pin.url, []).append(pin)
    subjects = {url: PurePosixPath(urlsplit(url).path).name for url in missing}
    names = {url: f"{subjects[url]} {pins[0].arch}" for url, pins in missing.items()}
    locked = []
    with progress.phase(
        "lock", "hash release files, verify who published them", tuple(names.values())
    ):
        for url, pins in missing.items():
            component = pins[0].name.partition("/")[0]
            publisher = PUBLISHERS.get(component)
            if publisher is None:
                raise ArtifactError(
                    f"{component} {pins[0].version} has no checksums by its publisher",
                    hint="nothing was written; pin the version that the catalogue has",
                )
            sha256 = web.sha256(url, lambda text, url=url: progress.update(names[url], text))  # type: ignore[misc]
            folder = url.rpartition("/")[0]
            where = publisher.checksums.format(url=url, folder=folder)
            said = checksum(web.read(where).decode(errors="replace"), subjects[url])
            if said != sha256:
                raise ArtifactError(
                    f"{url} has SHA-256 {sha256}; {where} says {said or 'nothing of it'}",
                    hint="nothing was written; is the release whole, is the mirror?",
                )
            signer = publisher.signer
            signed_by = signatures.verify(url, sha256, pins[0].version, signer) if signer else ""
            locked.append(Locked(tuple(pins), sha256, signed_by))
            progress.done(names[url])
    return tuple(locked)


def checksum(text: str, name: str) -> str:
    """The SHA-256 of file `name`: from lines as sha256sum writes them, or from one that is alone."""
    lines = [line.split() for line in text.splitlines()]
    for words in lines:
        if len(words) == 2 and PurePosixPath(words[1].removeprefix("*")).name == name:
            return words[0].lower()
    alone = [words[0] for words in lines if len(words) == 1]
    return alone[0].lower() if len(lines) == len(alone) == 1 else ""


def sums(locked: Iterable[Locked]) -> Mapping[tuple[str, str], str]:
    """(name, arch) -> SHA-256, as `catalogue_edit.with_sums` takes them."""
    return {(pin.name, pin.arch): each.sha256 for each in locked for pin in each.pins}
