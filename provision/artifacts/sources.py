"""Make artifacts ready by the source that the inventory names in `artifacts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from provision.artifacts import build, bundle, catalogue, download, go, recipes
from provision.artifacts.catalogue import Catalogue
from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet, Pin, Ready, mirrored
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
    agree: go.Agree = go.refuse,
    installed: frozenset[str] = frozenset(),
) -> ArtifactSet:
    """Make artifacts ready for delivery.

    Args:
        settings: the inventory's `artifacts`.
        kubernetes: the version.
        wanted: (name, arch). The name `images` is the set of images. The sources `official` and
            `mirror` do not have it: nodes then pull images from upstream.
        known: the catalogue; by default that of this release.
        make: False: only plan. Nothing is compiled; artifacts to be compiled have no pin.
        agree: called before a compiler is installed on this computer; raises if the operator does
            not agree.
        installed: pins of what machines have. The source `auto` keeps these: no program of a
            running cluster restarts because a publisher is silent, or answers again.

    Raises:
        ArtifactError: the source does not have an artifact.
        RefusedError: the operator does not agree to install a compiler.
    """
    known = known or catalogue.catalogue()
    all_wanted = tuple(wanted)
    compiled = _Build(kubernetes, progress, make, agree, installed)
    if settings.source in {"build", "bundle"}:
        return _published(settings, compiled, all_wanted, known)
    unpublished = tuple(pair for pair in all_wanted if pair[0] in recipes.UNPUBLISHED)
    published = tuple(pair for pair in all_wanted if pair not in unpublished)
    ready = _published(settings, compiled, published, known)
    if not unpublished:
        return ready
    names = ", ".join(sorted({name for name, _ in unpublished}))
    if settings.source == "official":
        raise ArtifactError(
            f"the source `official` does not compile, and no publisher has a binary of {names}",
            hint='"artifacts": {"source": "auto"} compiles what cannot be downloaded',
        )
    if ready.source != "build":
        progress.note(
            f"artifacts: compiled on this computer, because no publisher has a binary: {names}"
        )
    also = compiled(unpublished)
    return replace(ready, items={**ready.items, **also.items})


def _published(
    settings: ArtifactsSource, compiled: _Build, all_wanted: _Wanted, known: Catalogue
) -> ArtifactSet:
    """Make publishers' files ready, from the source of the settings."""
    kubernetes = compiled.kubernetes
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
                bundle.open_bundle(settings.bundle, compiled.progress), kubernetes, all_wanted
            )
        case "build":
            return compiled(all_wanted)
        case "auto":
            return _auto(known, compiled, all_wanted)


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


@dataclass(frozen=True)
class _Build:
    """The source `build`, for one version of Kubernetes; see `prepare`."""

    kubernetes: str
    progress: Progress
    make: bool
    agree: go.Agree
    installed: frozenset[str]

    def __call__(self, wanted: _Wanted) -> ArtifactSet:
        if not self.make:
            return ArtifactSet("build", build.foreseen(self.kubernetes, wanted))
        made = build.prepare(self.kubernetes, wanted, self.progress, self.agree)
        return ArtifactSet("build", made)


def _auto(known: Catalogue, build_here: _Build, wanted: _Wanted) -> ArtifactSet:
    """Take each file from its publisher; compile it if that is not possible.

    It is not possible if the catalogue has no SHA-256 of the file, or if its publisher does not
    answer. If everything is compiled, so are the images: their registries cannot be expected to
    answer either.
    """
    pins = _pins(known, build_here.kubernetes, wanted)
    if kept := _kept(pins, build_here, wanted):
        return kept
    pinned = {urlsplit(pin.url).netloc: pin.url for pin in pins if pin.sha256}
    silent = {host for host, url in pinned.items() if not download.answers(url, _PATIENCE)}
    official = tuple(pin for pin in pins if pin.sha256 and urlsplit(pin.url).netloc not in silent)
    compiled = {(pin.name, pin.arch) for pin in pins} - {(pin.name, pin.arch) for pin in official}
    if compiled:
        unpinned = sorted({f"{p.name.partition('/')[0]} {p.version}" for p in pins if not p.sha256})
        reasons = [f"{host} did not answer within {_PATIENCE:g} s" for host in sorted(silent)]
        if unpinned:
            files = ", ".join(unpinned)
            reasons.append(f"the catalogue has no SHA-256 for the release files of {files}")
        what = ", ".join(sorted({name for name, _ in compiled})) if official else "everything"
        build_here.progress.note(
            f"artifacts: {what} is compiled here, because {' and '.join(reasons)}"
        )
    if not official:
        return build_here(wanted)
    ready = ArtifactSet("official", _official(official))
    built = build_here(tuple(pair for pair in wanted if pair in compiled))
    return replace(ready, items={**ready.items, **built.items})


def _kept(pins: Iterable[Pin], build_here: _Build, wanted: _Wanted) -> ArtifactSet | None:
    """The artifacts that machines have already, from publishers or compiled; None: not all."""
    pins, installed = tuple(pins), build_here.installed
    if all(pin.sha256 for pin in pins):
        official = _official(pins)
        # A file that this computer downloaded has the pin of the file, not of its archive.
        if all({r.pin, download.in_cache(r).pin} & installed for r in official.values()):
            return ArtifactSet("official", official)
    if not installed:
        return None
    made = build.made(build_here.kubernetes, wanted)
    if made and all(ready.pin in installed for (name, _), ready in made.items() if name != IMAGES):
        return ArtifactSet("build", made)
    return None
