"""The images that manifests and containerd's configuration name, and what is in ours.

With the source `build` (and in a bundle made from it) the same references are served by the
masters' registries from images made here out of the programs of `build.py`: no base image, a
program and a few directories. There are no CA certificates in them: the programs trust the
cluster's own, which is mounted into every pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

IMAGES = "images"

# The tools of build/busybox; the shell is where scripts expect it.
TOOLS = (
    *("cat", "chmod", "cp", "echo", "env", "false", "hostname", "id", "ls", "mkdir"),
    *("nslookup", "rm", "sh", "sleep", "stat", "touch", "true", "wget"),
)
_TOOLBOX = {"/bin/busybox": "busybox/busybox"}


@dataclass(frozen=True)
class Image:
    """An image as the source `build` makes it.

    Attributes:
        reference: under which name manifests ask for it, tag included.
        programs: path in the image -> program of `build.py`.
        entrypoint, command, user: as upstream's image has them.
        tools: whether /bin has the toolbox's names.
    """

    reference: str
    programs: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = "0:0"
    tools: bool = False


TABLE: Mapping[str, Image] = {
    "pause": Image(
        "registry.k8s.io/pause:3.10.1",
        {"/pause": "pause/pause"},
        entrypoint=("/pause",),
        user="65535:65535",
    ),
    "coredns": Image(
        "registry.k8s.io/coredns/coredns:v1.15.0",
        {"/coredns": "coredns/coredns"},
        entrypoint=("/coredns",),
        user="65532:65532",
    ),
    "metrics-server": Image(
        "registry.k8s.io/metrics-server/metrics-server:v0.9.0",
        {"/metrics-server": "metrics-server/metrics-server"},
        entrypoint=("/metrics-server",),
        user="65534",
    ),
    "local-path-provisioner": Image(
        "docker.io/rancher/local-path-provisioner:v0.0.30",
        {"/usr/bin/local-path-provisioner": "local-path-provisioner/local-path-provisioner"},
        command=("local-path-provisioner",),
    ),
    "busybox": Image("docker.io/library/busybox:1.37", _TOOLBOX, command=("sh",), tools=True),
    "agnhost": Image(
        "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
        {"/agnhost": "agnhost/agnhost", **_TOOLBOX},
        entrypoint=("/agnhost",),
        command=("pause",),
        tools=True,
    ),
}


def refs() -> Mapping[str, str]:
    """Short name -> reference, `pause` -> `registry.k8s.io/pause:3.10.1`."""
    return {name: image.reference for name, image in TABLE.items()}
