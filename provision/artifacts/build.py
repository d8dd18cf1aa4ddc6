"""The source `build`: compile programs from pinned Go modules, and make images of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from provision.artifacts import cache, go, image_build
from provision.artifacts.images import IMAGES
from provision.artifacts.model import Ready
from provision.artifacts.recipes import Build, plan
from provision.local.progress import Progress
from provision.model.errors import ArtifactError


def prepare(
    kubernetes: str, wanted: Iterable[tuple[str, str]], progress: Progress
) -> Mapping[tuple[str, str], Ready]:
    """Build the wanted artifacts that are not in the cache.

    Args:
        wanted: (artifact or `images`, arch).

    Raises:
        ArtifactError: a recipe or tool is missing, or the compiler failed.
    """
    wanted = tuple(wanted)
    names = {pair for pair in wanted if pair[0] != IMAGES}
    arches = sorted({arch for name, arch in wanted if name == IMAGES})
    lacking = [arch for arch in arches if cache.recorded(image_build.path_of(arch)) is None]
    in_images = {(program, arch) for arch in lacking for program in image_build.programs()}
    _compile(kubernetes, names | in_images, progress)
    for arch in lacking:
        image_build.make(arch, progress)
    return {
        (name, arch): image_build.ready(arch) if name == IMAGES else _ready(name, arch, kubernetes)
        for name, arch in wanted
    }


def foreseen(kubernetes: str, wanted: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Ready]:
    """Say what `prepare` would make, to plan with. Nothing is built, and nothing has a pin.

    Raises:
        ArtifactError: there is no recipe for it.
    """
    return {
        (name, arch): Ready(
            name, "" if name == IMAGES else plan(name, arch, kubernetes).version, arch, pin=""
        )
        for name, arch in wanted
    }


def _ready(name: str, arch: str, kubernetes: str) -> Ready:
    build = plan(name, arch, kubernetes)
    path = build.directory / name.partition("/")[2]
    pin = cache.recorded(path) or cache.record(path)
    return Ready(name, build.version, arch, pin, local=path)


def _compile(kubernetes: str, names: Iterable[tuple[str, str]], progress: Progress) -> None:
    missing: dict[Build, list[str]] = {}
    for name, arch in sorted(names):
        build, program = plan(name, arch, kubernetes), name.partition("/")[2]
        if cache.recorded(build.directory / program) is None:
            missing.setdefault(build, []).append(program)
    if not missing:
        return
    progress.note(
        "compiling from pinned Go modules: the first time this takes about a quarter of an hour on"
        f" two cores; the programs are kept in {cache.root() / 'builds'}"
    )
    subjects = {build: f"{build.component} {build.version} {build.arch}" for build in missing}
    with progress.phase("build", "compile from pinned Go modules", tuple(subjects.values())):
        compiler = go.toolchain(progress.note)
        for build, programs in missing.items():
            _compile_one(compiler, build, programs, subjects[build], progress)


def _compile_one(
    compiler: Path, build: Build, programs: Sequence[str], subject: str, progress: Progress
) -> None:
    def waiting() -> None:
        progress.update(subject, "waiting: another clusterctl builds it")

    lock = build.directory.with_name(f"{build.arch}.lock")
    with cache.locked(lock, waiting):
        programs = [p for p in programs if cache.recorded(build.directory / p) is None]
        try:
            if programs:
                _compile_locked(compiler, build, programs, subject, progress)
        except ArtifactError:
            progress.done(subject, "failed", failed=True)
            raise
    progress.done(subject)


def _compile_locked(
    compiler: Path, build: Build, programs: Sequence[str], subject: str, progress: Progress
) -> None:
    build.directory.mkdir(exist_ok=True)
    progress.update(subject, "compiling")
    c = go.c_compiler(build.arch, progress.note) if build.recipe.static_c else None
    with tempfile.TemporaryDirectory(dir=build.directory, prefix=".go-") as scratch:
        go.build(
            compiler,
            build.source,
            [build.recipe.packages[program] for program in programs],
            Path(scratch),
            arch=build.arch,
            ldflags=build.ldflags,
            tags=build.recipe.tags,
            cgo=c,
            report=lambda text: progress.update(subject, text),
        )
        for program in programs:
            path = build.directory / program
            (Path(scratch) / build.output(program)).replace(path)
            cache.record(path)
