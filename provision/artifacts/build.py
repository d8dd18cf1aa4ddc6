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

_Compilers = tuple[Path, go.CCompiler | None]


def prepare(
    kubernetes: str,
    wanted: Iterable[tuple[str, str]],
    progress: Progress,
    agree: go.Agree = go.refuse,
) -> Mapping[tuple[str, str], Ready]:
    """Build the wanted artifacts that are not in the cache.

    Args:
        wanted: (artifact or `images`, arch).
        agree: called before a compiler is installed on this computer.

    Raises:
        ArtifactError: a recipe or tool is missing, or the compiler failed.
    """
    wanted = tuple(wanted)
    names = {pair for pair in wanted if pair[0] != IMAGES}
    arches = sorted({arch for name, arch in wanted if name == IMAGES})
    lacking = [arch for arch in arches if cache.recorded(image_build.path_of(arch)) is None]
    in_images = {(program, arch) for arch in lacking for program in image_build.programs()}
    _compile(kubernetes, names | in_images, progress, agree)
    for arch in lacking:
        image_build.make(arch, progress)
    return {
        (name, arch): image_build.ready(arch) if name == IMAGES else _ready(name, arch, kubernetes)
        for name, arch in wanted
    }


def made(
    kubernetes: str, wanted: Iterable[tuple[str, str]]
) -> Mapping[tuple[str, str], Ready] | None:
    """Give the wanted artifacts if all of them were compiled before; else None.

    Raises:
        ArtifactError: there is no recipe for one of them.
    """
    wanted = tuple(wanted)
    for name, arch in wanted:
        if name == IMAGES:
            path = image_build.path_of(arch)
        else:
            path = plan(name, arch, kubernetes).directory / name.partition("/")[2]
        if cache.recorded(path) is None:
            return None
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


def _compile(
    kubernetes: str, names: Iterable[tuple[str, str]], progress: Progress, agree: go.Agree
) -> None:
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
    # A question, before the live table of the phase.
    compiler = go.toolchain(progress.note, agree)
    c_compilers = {
        build: go.c_compiler(build.arch, progress.note, agree)
        for build in missing
        if build.recipe.static_c
    }
    subjects = {build: f"{build.component} {build.version} {build.arch}" for build in missing}
    with progress.phase("build", "compile from pinned Go modules", tuple(subjects.values())):
        for build, programs in missing.items():
            _compile_one(
                (compiler, c_compilers.get(build)), build, programs, subjects[build], progress
            )


def _compile_one(
    compilers: _Compilers, build: Build, programs: Sequence[str], subject: str, progress: Progress
) -> None:
    def waiting() -> None:
        progress.update(subject, "waiting: another clusterctl builds it")

    lock = build.directory.with_name(f"{build.arch}.lock")
    with cache.locked(lock, waiting):
        programs = [p for p in programs if cache.recorded(build.directory / p) is None]
        try:
            if programs:
                _compile_locked(compilers, build, programs, subject, progress)
        except ArtifactError:
            progress.done(subject, "failed", failed=True)
            raise
    progress.done(subject)


def _compile_locked(
    compilers: _Compilers, build: Build, programs: Sequence[str], subject: str, progress: Progress
) -> None:
    compiler, c = compilers
    build.directory.mkdir(exist_ok=True)
    progress.update(subject, "compiling")
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
