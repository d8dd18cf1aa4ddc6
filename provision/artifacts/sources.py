"""From the inventory's `artifacts` to an `ArtifactSet`: which source, and what it has ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from provision.artifacts import build, bundle, catalogue, download
from provision.artifacts.catalogue import Catalogue
from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet, Pin, Ready
from provision.artifacts.web import mirrored
from provision.local.progress import Progress
from provision.model.errors import ArtifactError
from provision.model.settings.components import ArtifactsSource

# How long the publishers have to answer before `auto` builds instead.
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
        wanted: (name, arch); the name `images` is the set of images, which the sources
            `official` and `mirror` do not have: nodes pull from upstream then.
        known: the catalogue; the shipped one by default.
        make: False: only to plan for machines that have none yet; what would be built here has
            no pin then, and is not built.

    Raises:
        ArtifactError: something cannot be had from that source, and what to do.
    """
    known = known or catalogue.catalogue()
    all_wanted = tuple(wanted)
    if settings.source in {"build", "bundle"}:
        return _published(settings, kubernetes, all_wanted, progress, known, make=make)
    unpublished = tuple(pair for pair in all_wanted if pair[0] in build.UNPUBLISHED)
    published = tuple(pair for pair in all_wanted if pair not in unpublished)
    ready = _published(settings, kubernetes, published, progress, known, make=make)
    if not unpublished:
        return ready
    if ready.source != "build":
        names = ", ".join(sorted({name for name, _ in unpublished}))
        progress.note(f"artifacts: built here, since nobody publishes it as a file: {names}")
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
    """What one source has."""
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
                    "the source is `bundle`, and no file is named",
                    hint='artifacts: {"source": "bundle", "bundle": "FILE"}',
                )
            return bundle.choose(
                bundle.open_bundle(settings.bundle, progress), kubernetes, all_wanted
            )
        case "build":
            return _build(kubernetes, all_wanted, progress, make=make)
        case "auto":
            return _auto(known, kubernetes, all_wanted, progress, make=make)


def _pins(known: Catalogue, kubernetes: str, wanted: _Wanted) -> tuple[Pin, ...]:
    """The pins of what is wanted, images left out."""
    pins = known.pins(kubernetes)
    unknown = [
        f"{name} {arch}" for name, arch in wanted if name != IMAGES and (name, arch) not in pins
    ]
    if unknown:
        raise ArtifactError(
            f"not in the catalogue: {', '.join(unknown)}",
            hint=f"architectures are {' and '.join(catalogue.ARCHES)}; see `clusterctl artifacts list`",
        )
    return tuple(pins[pair] for pair in wanted if pair[0] != IMAGES)


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
    """As official, from `BASE/HOST/PATH`: `https://mirror/dl.k8s.io/v1.36.3/bin/...`."""
    if not base:
        raise ArtifactError(
            "the source is `mirror`, and no base URL is given",
            hint='artifacts: {"source": "mirror", "mirror": "https://mirror.example.com"}; files are'
            " expected under BASE/HOST/PATH, as in BASE/dl.k8s.io/v1.36.3/bin/linux/amd64/kubelet",
        )
    return _official(replace(pin, url=mirrored(base, pin.url)) for pin in pins)


def _build(kubernetes: str, wanted: _Wanted, progress: Progress, *, make: bool) -> ArtifactSet:
    if not make:
        return ArtifactSet("build", build.foreseen(kubernetes, wanted))
    return ArtifactSet("build", build.prepare(kubernetes, wanted, progress))


def _auto(
    known: Catalogue, kubernetes: str, wanted: _Wanted, progress: Progress, *, make: bool
) -> ArtifactSet:
    """Official where that is pinned whole and answers, else build; the user is told why."""
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
