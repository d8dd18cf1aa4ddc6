"""OCI images, written as the storage of distribution's filesystem driver. Nothing runs here.

A tar of that storage is all that a registry needs to serve the images: no push, no engine. The
repository's name is the upstream registry's host and path, `registry.k8s.io/coredns/coredns`;
containerd asks for it so through `override_path`.

Layers are not compressed: gzip's and zstd's output differs between versions of the libraries,
and then the same image would have another digest on another operator's computer.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from provision.artifacts.cache import replacing
from provision.model import paths
from provision.model.commands import shell
from provision.model.errors import ArtifactError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_SAVE = f"write it with {shell('podman', 'save', '-o', 'FILE', 'IMAGE')} or with Docker's `save`"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """Content with its digest, `sha256:...`; bytes for what is small, a file for what is not."""

    digest: str
    size: int
    source: bytes | Path

    @classmethod
    def of(cls, source: bytes | Path) -> Blob:
        if isinstance(source, bytes):
            return cls(f"sha256:{hashlib.sha256(source).hexdigest()}", len(source), source)
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(f"sha256:{digest}", source.stat().st_size, source)

    def descriptor(self, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": self.digest, "size": self.size}

    def open(self) -> IO[bytes]:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


@dataclass(frozen=True)
class Stored:
    """An image as a registry keeps it.

    Attributes:
        manifests: the one that tags point to first; more where that one is an index.
        blobs: layers and configurations.
    """

    manifests: tuple[Blob, ...]
    blobs: tuple[Blob, ...]


@dataclass(frozen=True)
class File:
    """An entry of a layer.

    Attributes:
        content: bytes, or a file to copy; a str is a symbolic link's target; None: a directory.
    """

    path: str
    content: bytes | Path | str | None
    mode: int = 0o755


def write_layer(files: Iterable[File], path: Path) -> Blob:
    """Write a layer: owner root, times zero, sorted, so that the same files give the same digest."""
    wanted = {file.path.strip("/"): file for file in files}
    for name in tuple(wanted):
        for parent in Path(name).parents[:-1]:
            wanted.setdefault(str(parent), File(str(parent), None))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(wanted):
            _add(archive, name, wanted[name])
    return Blob.of(path)


def _add(archive: tarfile.TarFile, name: str, file: File) -> None:
    info = tarfile.TarInfo(name)
    info.mode = file.mode
    if file.content is None:
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    elif isinstance(file.content, str):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, file.content, 0o777
        archive.addfile(info)
    else:
        blob = Blob.of(file.content)
        info.size = blob.size
        with blob.open() as content:
            archive.addfile(info, content)


def image(arch: str, layers: Sequence[Blob], config: Mapping[str, Any]) -> Stored:
    """An image of uncompressed layers.

    Args:
        config: what containers are started with: `Entrypoint`, `Cmd`, `Env`, `User`.
    """
    configuration = Blob.of(
        _json(
            {
                "architecture": arch,
                "os": "linux",
                "config": dict(config),
                "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            }
        )
    )
    return Stored((_manifest(configuration, layers),), (configuration, *layers))


def _manifest(configuration: Blob, layers: Sequence[Blob]) -> Blob:
    return Blob.of(
        _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": configuration.descriptor(CONFIG),
                "layers": [layer.descriptor(LAYER) for layer in layers],
            }
        )
    )


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def split_reference(reference: str) -> tuple[str, str]:
    """(repository with the registry's host, tag); Docker's short forms are spelled out.

    Raises:
        ArtifactError: it is not a name with a tag, or the registry cannot store it.
    """
    name, tag = reference, "latest"
    if ":" in reference.rpartition("/")[2]:
        name, _, tag = reference.rpartition(":")
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"docker.io/{name}"
    if not (_REPOSITORY.fullmatch(name) and _TAG.fullmatch(tag)):
        raise ArtifactError(
            f"{reference!r} cannot be the name of an image here",
            hint="a name is HOST/PATH:TAG in lower case, without a port and without a digest,"
            " `registry.example.com/team/app:1.0`",
        )
    return name, tag


def write_storage(images: Mapping[str, Stored], out: Path) -> Path:
    """Write a tar of a registry's storage, the same bytes for the same images.

    Args:
        images: reference -> image.
        out: the tar; it is replaced when the new one is whole.

    Raises:
        ArtifactError: a reference is not valid.
    """
    entries: dict[str, Blob] = {}
    for reference, stored in images.items():
        repository, tag = split_reference(reference)
        home = f"{paths.REGISTRY_STORAGE}/repositories/{repository}"
        for blob in (*stored.manifests, *stored.blobs):
            hexadecimal = blob.digest.removeprefix("sha256:")
            entries[
                f"{paths.REGISTRY_STORAGE}/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
            ] = blob
        links = [f"_layers/{_path(blob)}" for blob in stored.blobs]
        links += [f"_manifests/revisions/{_path(blob)}" for blob in stored.manifests]
        for link in links:
            entries[f"{home}/{link}/link"] = _link(link)
        tagged, tags = stored.manifests[0], f"{home}/_manifests/tags/{tag}"
        for place in ("current", f"index/{_path(tagged)}"):
            entries[f"{tags}/{place}/link"] = _link(_path(tagged))
    with (
        replacing(out) as temporary,
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(entries):
            info = tarfile.TarInfo(name)
            info.size, info.mode = entries[name].size, 0o644
            with entries[name].open() as content:
                tar.addfile(info, content)
    return out


def _path(blob: Blob) -> str:
    return blob.digest.replace(":", "/")


def _link(path: str) -> Blob:
    return Blob.of("sha256:{}".format(path.rpartition("/")[2]).encode())


def layout_from_archive(archive: Path, reference: str, out: Path) -> Path:
    """Turn what `podman save` or `docker save` wrote into a tar of a registry's storage.

    Args:
        archive: an OCI archive or a docker-archive, gzipped or not.
        reference: the name under which the cluster will find the image.
        out: the tar to write.

    Raises:
        ArtifactError: it is not such an archive, a digest in it is wrong, or it holds several
            images and none has that name.
    """
    if not archive.is_file():
        raise ArtifactError(f"there is no file {archive}", hint=_SAVE)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".image-") as directory:
        try:
            with tarfile.open(archive) as tar:
                reader = _Archive(archive, tar, Path(directory))
                return write_storage({reference: reader.image(reference)}, out)
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, KeyError, ValueError) as error:
            raise ArtifactError(
                f"{archive} is not an image archive, or not a whole one: {error}",
                hint=_SAVE,
            ) from error


class _Archive:
    """An image archive that is open."""

    def __init__(self, path: Path, tar: tarfile.TarFile, scratch: Path) -> None:
        self.path, self.tar, self.scratch = path, tar, scratch
        self.names = {name.removeprefix("./"): name for name in tar.getnames()}

    def image(self, reference: str) -> Stored:
        return self._oci(reference) if "index.json" in self.names else self._docker(reference)

    def _open(self, name: str) -> IO[bytes]:
        file = self.tar.extractfile(self.names[name])
        if file is None:
            raise ValueError(f"{name} is not a file")
        return file

    def _extract(self, name: str) -> Blob:
        """A file of the archive as a blob; it lives as long as the scratch directory."""
        target = self.scratch / hashlib.sha256(name.encode()).hexdigest()
        with self._open(name) as source, target.open("wb") as copy:
            while piece := source.read(1 << 20):
                copy.write(piece)
        return Blob.of(target)

    def _by_digest(self, digest: str) -> Blob:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a SHA-256 digest")
        blob = self._extract(f"blobs/{digest.replace(':', '/')}")
        if blob.digest != digest:
            raise ArtifactError(
                f"{self.path}: a blob has the wrong hash: expected {digest}, got {blob.digest}",
                hint="the archive is damaged; save the image again",
            )
        return blob

    def _choose(self, reference: str, names: Sequence[Sequence[str]]) -> int:
        """Index of the image called `reference`; a single image may be called anything."""
        wanted = split_reference(reference)
        if len(names) == 1:
            return 0
        for index, given in enumerate(names):
            if any(split_reference(name) == wanted for name in given):
                return index
        listed = ", ".join(name for given in names for name in given) or "nameless ones"
        raise ArtifactError(
            f"{self.path} holds {len(names)} images and none is {reference}: {listed}",
            hint="save one image alone, or push it under one of these names",
        )

    def _oci(self, reference: str) -> Stored:
        with self._open("index.json") as file:
            candidates = json.load(file)["manifests"]
        annotations = [candidate.get("annotations", {}) for candidate in candidates]
        names = [
            [
                note[key]
                for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name")
                # Docker writes the bare tag under the second key.
                if "/" in note.get(key, "") or ":" in note.get(key, "")
            ]
            for note in annotations
        ]
        chosen = candidates[self._choose(reference, names)]
        return self._manifest(chosen["digest"])

    def _manifest(self, digest: str) -> Stored:
        blob = self._by_digest(digest)
        with blob.open() as file:
            manifest = json.load(file)
        if "manifests" not in manifest:
            blobs = [
                self._by_digest(part["digest"])
                for part in (manifest["config"], *manifest["layers"])
            ]
            return Stored((blob,), tuple(blobs))
        manifests, blobs = [blob], []
        for child in manifest["manifests"]:
            # `docker save` writes the whole index, and the blobs of one platform.
            if f"blobs/{child['digest'].replace(':', '/')}" in self.names:
                inner = self._manifest(child["digest"])
                manifests += inner.manifests
                blobs += inner.blobs
        if not blobs:
            raise ValueError("its index names no image that is in it")
        return Stored(tuple(manifests), tuple(blobs))

    def _docker(self, reference: str) -> Stored:
        with self._open("manifest.json") as file:
            images = json.load(file)
        chosen = images[self._choose(reference, [entry["RepoTags"] or [] for entry in images])]
        configuration = self._extract(chosen["Config"])
        layers = [self._extract(name) for name in chosen["Layers"]]
        with configuration.open() as file:
            expected = json.load(file)["rootfs"]["diff_ids"]
        for name, layer, digest in zip(chosen["Layers"], layers, expected, strict=True):
            if layer.digest != digest:
                raise ArtifactError(
                    f"{self.path}: {name} has the wrong hash: expected {digest}, got {layer.digest}",
                    hint="the archive is damaged; save the image again",
                )
        return Stored((_manifest(configuration, layers),), (configuration, *layers))
