"""Make artifacts ready by the source that the inventory names in `artifacts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from provision.artifacts import build, bundle, catalogue, download, recipes
from provision.artifacts.catalogue import Catalogue
from provision.artifacts.download import mirrored
from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet, Pin, Ready
from provision.local.progress import Progress
from provision.model.errors import ArtifactError
from provision.model.settings.components import ArtifactsSource

# Seconds that `auto` waits for the publisher's answer. After that it builds.
_PATIENCE = 3.0

_Wanted = tuple[tuple[str, str], ...]


def prepare(
    settings: ArtifactsSource,
    kubernetes: str,
    wanted: Iterable[tuple[str, str]],
    progress: Progress,
    known: Catalogue | None = None,
    *,
    make: bool = True,
) -> ArtifactSet:
    """Make artifacts ready for delivery.

    Args:
        settings: the inventory's `artifacts`.
        kubernetes: the version.
        wanted: (name, arch). The name `images` is the set of images. The sources `official` and
            `mirror` do not have it: nodes then pull images from upstream.
        known: the catalogue; by default that of this release.
        make: False: only plan. Nothing is compiled; artifacts to be compiled have no pin.

    Raises:
        ArtifactError: the source does not have an artifact.
    """
    known = known or catalogue.catalogue()
    all_wanted = tuple(wanted)
    if settings.source in {"build", "bundle"}:
        return _published(settings, kubernetes, all_wanted, progress, known, make=make)
    unpublished = tuple(pair for pair in all_wanted if pair[0] in recipes.UNPUBLISHED)
    published = tuple(pair for pair in all_wanted if pair not in unpublished)
    ready = _published(settings, kubernetes, published, progress, known, make=make)
    if not unpublished:
        return ready
    if ready.source != "build":
        names = ", ".join(sorted({name for name, _ in unpublished}))
        progress.note(
            f"artifacts: compiled on this computer, because no publisher has a binary: {names}"
        )
    also = _build(kubernetes, unpublished, progress, make=make)
    return replace(ready, items={**ready.items, **also.items})


def _published(
    settings: ArtifactsSource,
    kubernetes: str,
    all_wanted: _Wanted,
    progress: Progress,
    known: Catalogue,
    *,
    make: bool,
) -> ArtifactSet:
    """Make publishers' files ready, from the source of the settings."""
    match settings.source:
        case "official":
            return ArtifactSet("official", _official(_pins(known, kubernetes, all_wanted)))
        case "mirror":
            return ArtifactSet(
                "mirror", _mirror(settings.mirror, _pins(known, kubernetes, all_wanted))
            )
        case "bundle":
            if settings.bundle is None:
                raise ArtifactError(
                    "the artifacts' source is `bundle`, but the inventory names no file",
                    hint='"artifacts": {"source": "bundle", "bundle": "FILE"}',
                )
            return bundle.choose(
                bundle.open_bundle(settings.bundle, progress), kubernetes, all_wanted
            )
        case "build":
            return _build(kubernetes, all_wanted, progress, make=make)
        case "auto":
            return _auto(known, kubernetes, all_wanted, progress, make=make)


def _pins(known: Catalogue, kubernetes: str, wanted: _Wanted) -> tuple[Pin, ...]:
    """Find the pins of the wanted files; images are not files.

    Raises:
        ArtifactError: an architecture or a name is not in the catalogue.
    """
    pins = known.pins(kubernetes)
    files = [(name, arch) for name, arch in wanted if name != IMAGES]
    if arches := sorted({arch for _, arch in files} - set(catalogue.ARCHES)):
        raise ArtifactError(
            f"the catalogue has no binaries for the architecture {', '.join(arches)}",
            hint=f"it has: {', '.join(catalogue.ARCHES)}",
        )
    if names := sorted({name for name, arch in files if (name, arch) not in pins}):
        raise ArtifactError(
            f"the catalogue's set of Kubernetes {kubernetes} does not have {', '.join(names)}",
            hint=f"it has: {', '.join(sorted({name for name, _ in pins}))}",
        )
    return tuple(pins[pair] for pair in files)


def _official(pins: Iterable[Pin]) -> Mapping[tuple[str, str], Ready]:
    pins = tuple(pins)
    catalogue.require_checksums(pins)
    return {
        (pin.name, pin.arch): Ready(
            pin.name, pin.version, pin.arch, pin.sha256, url=pin.url, member=pin.member
        )
        for pin in pins
    }


def _mirror(base: str | None, pins: Iterable[Pin]) -> Mapping[tuple[str, str], Ready]:
    """Like official, with URLs `BASE/HOST/PATH`: `https://mirror/dl.k8s.io/v1.36.3/bin/...`."""
    if not base:
        raise ArtifactError(
            "the artifacts' source is `mirror`, but the inventory has no base URL",
            hint='"artifacts": {"source": "mirror", "mirror": "https://mirror.example.com"}; the mirror'
            " has files at BASE/HOST/PATH, as in BASE/dl.k8s.io/v1.36.3/bin/linux/amd64/kubelet",
        )
    return _official(replace(pin, url=mirrored(base, pin.url)) for pin in pins)


def _build(kubernetes: str, wanted: _Wanted, progress: Progress, *, make: bool) -> ArtifactSet:
    if not make:
        return ArtifactSet("build", build.foreseen(kubernetes, wanted))
    return ArtifactSet("build", build.prepare(kubernetes, wanted, progress))


def _auto(
    known: Catalogue, kubernetes: str, wanted: _Wanted, progress: Progress, *, make: bool
) -> ArtifactSet:
    """Use `official` if every file has a checksum and the first file's publisher answers.

    Otherwise use `build`.
    """
    pins = _pins(known, kubernetes, wanted)
    unpinned = sorted({f"{p.name.partition('/')[0]} {p.version}" for p in pins if not p.sha256})
    if unpinned:
        reason = f"the catalogue has no SHA-256 for the release files of {', '.join(unpinned)}"
    elif pins and not download.answers(pins[0].url, _PATIENCE):
        reason = f"{urlsplit(pins[0].url).netloc} did not answer within {_PATIENCE:g} s"
    else:
        return ArtifactSet("official", _official(pins))
    progress.note(f"artifacts: source `build`, because {reason}")
    return _build(kubernetes, wanted, progress, make=make)
