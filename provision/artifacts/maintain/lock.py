"""Find the checksums that the catalogue lacks, and verify them against their publishers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from provision.artifacts.catalogue import Catalogue
from provision.artifacts.maintain.publishers import PUBLISHERS, Signer
from provision.artifacts.maintain.web import Web
from provision.artifacts.model import Pin
from provision.local.progress import Progress
from provision.model.commands import shell
from provision.model.errors import ArtifactError


@dataclass(frozen=True)
class Locked:
    """A release file whose SHA-256 was found.

    Attributes:
        pins: the artifacts in the file; an archive has several.
        signed_by: empty if the publisher does not sign; then only its checksum was compared.
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
    """Find every checksum that `known` lacks for a version of Kubernetes.

    Each file is downloaded and hashed. The hash is compared with the checksum that the publisher
    has beside the file. If the publisher signs, the signature is verified. Files that are pinned
    already are skipped.

    Raises:
        ArtifactError: a file is missing, or its checksum or signature does not match.
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
                    f"the publisher of {component} {pins[0].version} has no checksums to compare",
                    hint=f"nothing was written; keep the version of {component} that has a"
                    " checksum in the catalogue",
                )
            sha256 = web.sha256(url, lambda text, url=url: progress.update(names[url], text))  # type: ignore[misc]
            folder = url.rpartition("/")[0]
            where = publisher.checksums.format(url=url, folder=folder)
            said = checksum(web.read(where).decode(errors="replace"), subjects[url])
            if said != sha256:
                raise ArtifactError(
                    f"{url} has SHA-256 {sha256}; "
                    + (f"{where} says {said}" if said else f"{where} does not list the file"),
                    hint="nothing was written; check that the release and the mirror are whole",
                )
            signer = publisher.signer
            signed_by = signatures.verify(url, sha256, pins[0].version, signer) if signer else ""
            locked.append(Locked(tuple(pins), sha256, signed_by))
            progress.done(names[url])
    return tuple(locked)


def verifier(web: Web, trusted_root: Path | None) -> Verifier:
    """Load the verifier of signatures, with Sigstore's public root of trust or one from a file.

    Raises:
        ArtifactError: the package sigstore is not installed, or the root cannot be loaded.
    """
    try:
        from provision.artifacts.maintain.signatures import Signatures  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"sigstore", "sigstore_models"}:
            raise
        raise ArtifactError(
            "verifying signatures needs the Python package sigstore, which is not installed",
            hint=shell("pip", "install", "clusterctl[maintainer]"),
        ) from error
    return Signatures(web, trusted_root)


def checksum(text: str, name: str) -> str:
    """Find the SHA-256 of file `name`, in lines of sha256sum or in a text that is one checksum."""
    lines = [line.split() for line in text.splitlines()]
    for words in lines:
        if len(words) == 2 and PurePosixPath(words[1].removeprefix("*")).name == name:
            return words[0].lower()
    alone = [words[0] for words in lines if len(words) == 1]
    return alone[0].lower() if len(lines) == len(alone) == 1 else ""


def sums(locked: Iterable[Locked]) -> Mapping[tuple[str, str], str]:
    """Give (name, arch) -> SHA-256, for `edit.with_sums`."""
    return {(pin.name, pin.arch): each.sha256 for each in locked for pin in each.pins}
