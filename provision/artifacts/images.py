"""The images that manifests and containerd's configuration name, and the contents of built images.

With the source `build` (and in a bundle made from it) the masters' registries serve the same
references. Their images are made here from the programs of `build.py`: no base image, a program and
a few directories. The images have no CA certificates: the programs trust the cluster's own
authority, whose certificate is mounted into every pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

IMAGES = "images"

# The tools of build/busybox; the shell has the path that scripts expect.
TOOLS = (
    *("cat", "chmod", "cp", "echo", "env", "false", "hostname", "id", "ls", "mkdir"),
    *("nslookup", "rm", "sh", "sleep", "stat", "touch", "true", "wget"),
)
_TOOLBOX = {"/bin/busybox": "busybox/busybox"}


@dataclass(frozen=True)
class Image:
    """An image as the source `build` makes it.

    Attributes:
        reference: the name in manifests, with the tag.
        digest: of upstream's image index; empty if it is not known. Images that are made here have
            other digests.
        programs: path in the image -> program of `build.py`.
        entrypoint, command, user: the same as in upstream's image.
        tools: whether /bin has the names of `TOOLS`.
    """

    reference: str
    programs: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = "0:0"
    tools: bool = False
    digest: str = ""


TABLE: Mapping[str, Image] = {
    "pause": Image(
        "registry.k8s.io/pause:3.10.2",
        {"/pause": "pause/pause"},
        entrypoint=("/pause",),
        user="65535:65535",
        # Three projects that pin it agree.
        digest="sha256:f548e0e8e3dc1896ca956272154dde3314e8cc4fde0a57577ee9fa1c63f5baf4",
    ),
    "coredns": Image(
        "registry.k8s.io/coredns/coredns:v1.14.6",
        {"/coredns": "coredns/coredns"},
        entrypoint=("/coredns",),
        user="65532:65532",
        # The promotion: github.com/kubernetes/k8s.io pull request 9712.
        digest="sha256:900f9c109f7a33545d3c811516e8376df9019147b750f5ce3e254468769176ea",
    ),
    "metrics-server": Image(
        "registry.k8s.io/metrics-server/metrics-server:v0.9.0",
        {"/metrics-server": "metrics-server/metrics-server"},
        entrypoint=("/metrics-server",),
        user="65534",
        # kubernetes/minikube eb25dbc70370, pkg/minikube/assets/addons.go; four projects agree, among
        # them timonish/modules and the build files of an installer that takes the same digest from
        # rancher/mirrored-metrics-server. Some projects pin the manifest of one platform instead.
        # The promotion of v0.9.0 in kubernetes/k8s.io was not found.
        digest="sha256:d9862115e7c7881280d3d75ca26bda8ffc0fc213315979575bf23ce9826205c0",
    ),
    "local-path-provisioner": Image(
        "docker.io/rancher/local-path-provisioner:v0.0.30",
        {"/usr/bin/local-path-provisioner": "local-path-provisioner/local-path-provisioner"},
        command=("local-path-provisioner",),
        # No public file has a digest of this version. 0.0.36 has a public digest, but does not compile
        # from Go modules.
    ),
    "busybox": Image(
        "docker.io/library/busybox:1.37",
        _TOOLBOX,
        command=("sh",),
        tools=True,
        # Five projects pin this digest; one of them uses Renovate, which pins the image index.
        digest="sha256:bdf57e528e45e4433820e045b29b4597825a1c9e38353532d90a01445013f82e",
    ),
    "agnhost": Image(
        "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
        {"/agnhost": "agnhost/agnhost", **_TOOLBOX},
        entrypoint=("/agnhost",),
        command=("pause",),
        tools=True,
        # Only `verify` and tests use it. No public file has a digest of this version.
    ),
}


def refs(*, by_digest: bool = False) -> Mapping[str, str]:
    """Give short name -> reference, `pause` -> `registry.k8s.io/pause:3.10.2`.

    Args:
        by_digest: add the digest of upstream's image where it is known.
    """
    return {
        name: f"{image.reference}@{image.digest}" if by_digest and image.digest else image.reference
        for name, image in TABLE.items()
    }


def pulled_by_digest(source: str) -> bool:
    """Whether nodes certainly pull upstream's images with this artifact source.

    With `build` and `bundle`, and sometimes with `auto`, the masters' registries have images that
    were made here. Their digests differ.
    """
    return source in {"official", "mirror"}
