"""Where binaries come from, the add-ons, and the components' own flags."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from provision.model.base import Model

KUBERNETES_DEFAULT = "1.36.3"


class ArtifactsSource(Model):
    source: Literal["auto", "official", "mirror", "bundle", "build"] = Field(
        default="auto",
        description="official: machines download; build: compiled on your computer from pinned "
        "Go modules; auto: official; where that cannot be reached, or has no known checksum, build",
    )
    mirror: str | None = Field(default=None, description="base URL, for the source `mirror`")
    bundle: Path | None = Field(default=None, description="file, for the source `bundle`")


class Addons(Model):
    coredns: bool = Field(default=True, description="the cluster's DNS")
    metrics_server: bool = Field(default=True, description="for `kubectl top` and autoscaling")
    local_path: bool = Field(
        default=True, description="local-path-provisioner, default StorageClass"
    )


ExtraArgs = dict[
    Literal[
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "etcd",
        "kubelet",
        "kube-proxy",
    ],
    dict[str, str],
]
