"""Bundles: one file with all artifacts, for machines and operators without a network.

A bundle is a tar, compressed with zstd. Its first file, `manifest.json`, lists every file with its
SHA-256; the files follow in that order.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provision.artifacts import cache
from provision.artifacts.download import fetch
from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet, Ready
from provision.local import disk
from provision.local.progress import Progress, Silent
from provision.model.commands import clusterctl
from provision.model.errors import ArtifactError

_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 1 << 20
_BUNDLE_LEVEL = 6
_PUSH_LEVEL = 1
_PIECE = 1 << 20
_MAKE = clusterctl("artifacts", "bundle", "INVENTORY", "FILE")
_AGAIN = f"copy the bundle again, or make a new one: {_MAKE}"


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)?$")
    version: str
    arch: str = Field(pattern=r"^[a-z0-9]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int

    @property
    def path(self) -> str:
        return f"{self.arch}/{self.name}"


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(default=1, ge=1, le=1)
    source: str
    items: tuple[_Item, ...]


def write_bundle(artifacts: ArtifactSet, path: Path, progress: Progress | None = None) -> Path:
    """Write every artifact into one file. Missing artifacts are downloaded first.

    Raises:
        ArtifactError: a download failed.
    """
    progress = progress or Silent()
    ready = fetch(artifacts, progress)
    files = {
        _Item(
            name=item.name,
            version=item.version,
            arch=item.arch,
            sha256=item.pin,
            size=item.local.stat().st_size,
        ): item.local
        for _, item in sorted(ready.items.items())
        if item.local is not None
    }
    manifest = _Manifest(source=ready.source, items=tuple(files))
    with progress.phase("bundle", f"write {path.name}", (path.name,)):
        with cache.replacing(path) as temporary, temporary.open("wb") as out:
            compressor = zstandard.ZstdCompressor(level=_BUNDLE_LEVEL, threads=-1)
            with (
                compressor.stream_writer(out, closefd=False) as stream,
                tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                text = manifest.model_dump_json(indent=1).encode()
                _add(tar, _MANIFEST, len(text), io.BytesIO(text))
                for item, local in files.items():
                    progress.update(path.name, item.name)
                    with local.open("rb") as file:
                        _add(tar, item.path, item.size, file)
        path.chmod(0o644)
        progress.done(path.name)
    return path


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    tar.addfile(info, content)


def open_bundle(path: Path, progress: Progress | None = None) -> ArtifactSet:
    """Verify a bundle and unpack it to the cache, once.

    Raises:
        ArtifactError: the file is not a bundle or is cut off, or a file in it has the wrong hash.
            No file of the bundle is used then.
    """
    progress = progress or Silent()
    try:
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            manifest, home = _read_manifest(tar)
            lock = home.with_name(f"{home.name}.lock")
            with cache.locked(
                lock, lambda: progress.note("waiting: another clusterctl unpacks the bundle")
            ):
                if not _is_unpacked(manifest, home):
                    _unpack(tar, manifest, home, path, progress)
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no bundle {path}", hint=f"make it: {_MAKE}") from error
    except (zstandard.ZstdError, tarfile.TarError, EOFError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path} is not a whole bundle: {reason}", hint=_AGAIN) from error
    items = {
        (i.name, i.arch): Ready(i.name, i.version, i.arch, i.sha256, local=home / i.path)
        for i in manifest.items
    }
    return ArtifactSet("bundle", items)


def _read_manifest(tar: tarfile.TarFile) -> tuple[_Manifest, Path]:
    """Read the manifest, and find the folder in the cache for its files."""
    first = tar.next()
    file = tar.extractfile(first) if first and first.name == _MANIFEST else None
    if first is None or file is None or first.size > _LARGEST_MANIFEST:
        raise tarfile.ReadError(f"it does not begin with {_MANIFEST}")
    text = file.read()
    manifest = _Manifest.model_validate_json(text)
    home = cache.root() / "bundles" / cache.sha256_of(text)
    return manifest, home


def _is_unpacked(manifest: _Manifest, home: Path) -> bool:
    return all(cache.recorded(home / item.path) == item.sha256 for item in manifest.items)


def _unpack(
    tar: tarfile.TarFile, manifest: _Manifest, home: Path, path: Path, progress: Progress
) -> None:
    """Verify and unpack all files, then move them to the cache together."""
    scratch = home.with_name(f".{home.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    with progress.phase("unpack", f"verify and unpack {path.name}", (path.name,)):
        try:
            for item in manifest.items:
                progress.update(path.name, f"{item.name} {item.arch}")
                _unpack_one(tar, item, scratch / item.path, path)
            shutil.rmtree(home, ignore_errors=True)
            scratch.replace(home)
            progress.done(path.name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _unpack_one(tar: tarfile.TarFile, item: _Item, target: Path, path: Path) -> None:
    entry = tar.next()
    source = tar.extractfile(entry) if entry and entry.name == item.path else None
    if source is None:
        found = entry.name if entry else "its end"
        raise ArtifactError(f"{path}: expected {item.path}, found {found}", hint=_AGAIN)
    target.parent.mkdir(parents=True, exist_ok=True)
    with disk.writing(target), target.open("wb") as out:
        shutil.copyfileobj(source, out, _PIECE)
    target.chmod(0o755)
    got = cache.record(target)
    if got != item.sha256:
        raise ArtifactError(
            f"{path}: {item.path} has the wrong hash: expected SHA-256 {item.sha256}, got {got}",
            hint=_AGAIN,
        )


def choose(
    bundle: ArtifactSet, kubernetes: str, wanted: Collection[tuple[str, str]]
) -> ArtifactSet:
    """Choose what a cluster needs from a bundle. A bundle without images is accepted.

    Raises:
        ArtifactError: an artifact is missing, or the bundle is for another version of Kubernetes.
    """
    items = {pair: bundle.items[pair] for pair in wanted if pair in bundle.items}
    missing = [pair for pair in wanted if pair not in items and pair[0] != IMAGES]
    if missing:
        listed = ", ".join(f"{name} {arch}" for name, arch in missing)
        options = " ".join(f"--arch {arch}" for arch in sorted({arch for _, arch in wanted}))
        raise ArtifactError(
            f"the bundle does not have {listed}", hint=f"make a new one: {_MAKE} {options}"
        )
    other = {i.version for i in items.values() if i.name.startswith("kubernetes/")} - {kubernetes}
    if other:
        raise ArtifactError(
            f"the bundle has Kubernetes {', '.join(sorted(other))}, but the inventory has {kubernetes}",
            hint=f'make a bundle of {kubernetes}: {_MAKE}; or change "kubernetes" in the inventory',
        )
    return ArtifactSet(bundle.source, items)


def compressed(ready: Ready) -> Path:
    """Compress an artifact with zstd for delivery. The compressed file is kept in the cache.

    Raises:
        ValueError: the artifact has no local file.
    """
    if ready.local is None:
        raise ValueError(f"{ready.name} is not local")
    target = cache.root() / "compressed" / f"{ready.pin}.zst"
    if not target.exists():
        compressor = zstandard.ZstdCompressor(level=_PUSH_LEVEL, threads=-1)
        with (
            cache.replacing(target) as temporary,
            ready.local.open("rb") as file,
            temporary.open("wb") as out,
        ):
            compressor.copy_stream(file, out, size=ready.local.stat().st_size)
    return target
