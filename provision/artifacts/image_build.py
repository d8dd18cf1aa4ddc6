"""Make images from programs that were compiled here. An OCI engine is not needed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from provision.artifacts import cache, oci
from provision.artifacts.images import IMAGES, TABLE, TOOLS, Image
from provision.artifacts.model import Ready
from provision.artifacts.recipes import plan
from provision.local.progress import Progress

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Programs read the users' database at most to find their own user.
_BASE = (
    oci.File("tmp", None, 0o1777),
    oci.File(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
        b"nonroot:x:65532:65532:nonroot:/nonexistent:/bin/false\n",
        0o644,
    ),
    oci.File("etc/group", b"root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n", 0o644),
)


def programs() -> frozenset[str]:
    """List the programs in the images, `coredns/coredns`."""
    return frozenset(program for image in TABLE.values() for program in image.programs.values())


def path_of(arch: str) -> Path:
    """Place of the images in the cache: it depends on their programs, TABLE and this code."""
    keys = {program: plan(program, arch, "").key for program in programs()}
    code = cache.sha256(Path(oci.__file__)), cache.sha256(Path(__file__))
    table = sorted((name, replace(image, digest="")) for name, image in TABLE.items())
    parts = repr((sorted(keys.items()), table, TOOLS, code))
    key = hashlib.sha256(parts.encode()).hexdigest()[:16]
    return cache.root() / "builds" / f"images-{key}" / arch / "images.tar"


def make(arch: str, progress: Progress) -> None:
    """Make the images of one architecture, from programs in the cache."""
    out = path_of(arch)
    lock = out.with_name("images.lock")
    with cache.locked(lock, lambda: progress.note("waiting: another clusterctl makes the images")):
        if cache.recorded(out) is not None:
            return
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".layers-") as scratch:
            layers = _Layers(Path(scratch), arch)
            made = {image.reference: layers.image(image) for image in TABLE.values()}
            oci.write_storage(made, out)
        cache.record(out)


class _Layers:
    """Writes layers to a scratch directory, each layer once."""

    def __init__(self, scratch: Path, arch: str) -> None:
        self.scratch, self.arch = scratch, arch
        self.made: dict[str, oci.Blob] = {}

    def image(self, image: Image) -> oci.Stored:
        layers = [self._layer("base", _BASE)]
        if image.tools:
            links = [oci.File(f"bin/{tool}", "busybox") for tool in TOOLS]
            layers.append(self._layer("tools", links))
        for path, program in image.programs.items():
            build = plan(program, self.arch, "")
            source = build.directory / program.partition("/")[2]
            layers.append(self._layer(program, [oci.File(path, source)]))
        config = {
            "User": image.user,
            "Env": [_PATH],
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.description": "built by clusterctl from source"},
            **({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}),
            **({"Cmd": list(image.command)} if image.command else {}),
        }
        return oci.image(self.arch, layers, config)

    def _layer(self, name: str, files: Iterable[oci.File]) -> oci.Blob:
        if name not in self.made:
            path = self.scratch / name.replace("/", "_")
            self.made[name] = oci.write_layer(files, path)
        return self.made[name]


def ready(arch: str) -> Ready:
    """Give the images of one architecture, once they are made."""
    path = path_of(arch)
    pin = cache.recorded(path) or cache.record(path)
    return Ready(IMAGES, pin[:12], arch, pin, local=path)
