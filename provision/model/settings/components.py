"""Where binaries come from, the add-ons, and the components' own flags."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from provision.model.base import Model

KUBERNETES_DEFAULT = "1.37.1"


class ArtifactsSource(Model):
    source: Literal["auto", "official", "mirror", "bundle", "build"] = Field(
        default="auto",
        description="official: the publishers' servers; mirror: your server; bundle: a file; "
        "build: this computer compiles pinned Go modules; auto: official, and build for files whose "
        "publisher does not answer",
    )
    mirror: str | None = Field(
        default=None,
        description="base URL of the mirror",
        examples=["https://mirror.example.org/clusterctl"],
    )
    bundle: Path | None = Field(
        default=None, description="the bundle file", examples=["clusterctl-bundle.tar"]
    )


class Addons(Model):
    coredns: bool = Field(default=True, description="the cluster's DNS")
    metrics_server: bool = Field(
        default=True, description="metrics for `kubectl top` and autoscaling"
    )
    local_path: bool = Field(
        default=True,
        description="local-path-provisioner: the default StorageClass, volumes on the node's disk",
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
