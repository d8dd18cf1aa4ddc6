"""containerd, runc and the reference CNI plug-ins."""

from __future__ import annotations

from shlex import quote
from urllib.parse import urlsplit

from provision.artifacts import images
from provision.desired.model import (
    Binary,
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Space,
    Unit,
)
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki import table
from provision.pki.trust import Trust

CERTS_D = "/etc/containerd/certs.d"
CNI_CONFIG = "/etc/cni/net.d"
ENVIRONMENT = "/etc/containerd/proxy.env"

# Registries whose images are first pulled from the masters. The inventory's `registry_mirrors` adds
# more. The host of Docker Hub's API differs from the host in its image names.
UPSTREAMS = {
    "docker.io": "https://registry-1.docker.io",
    "registry.k8s.io": "https://registry.k8s.io",
    "quay.io": "https://quay.io",
    "ghcr.io": "https://ghcr.io",
    "gcr.io": "https://gcr.io",
    "public.ecr.aws": "https://public.ecr.aws",
}


def _environment(cluster: Cluster) -> tuple[HostFile, ...]:
    """Give the file with proxy variables. A unit's text is not secret: all users can read it."""
    proxy = cluster.proxy
    if not (proxy.http or proxy.https):
        return ()
    own = [str(m.address) for m in cluster.machines]
    own += [str(cluster.networks.pods), str(cluster.networks.services), "127.0.0.1", "localhost"]
    own += [f".{cluster.networks.domain}", ".svc", *proxy.no_proxy]
    values = {"HTTP_PROXY": proxy.http, "HTTPS_PROXY": proxy.https, "NO_PROXY": ",".join(own)}
    lines = [f"{name}={quote(value)}\n" for name, value in values.items() if value]
    return (HostFile(ENVIRONMENT, "".join(lines).encode(), secret=True),)


def registries(cluster: Cluster) -> dict[str, str]:
    """Give the host in an image's name -> URL of that registry."""
    named = {name: f"https://{name}" for name in cluster.registry_mirrors}
    return {**named, **UPSTREAMS}


def mirrors(cluster: Cluster, registry: str) -> tuple[str, ...]:
    """Give the URLs of the inventory's mirrors of a registry, in their order."""
    return tuple(
        mirror if urlsplit(mirror).scheme else f"https://{mirror}"
        for mirror in cluster.registry_mirrors.get(registry, ())
    )


def _hosts(cluster: Cluster, machine: Machine, registry: str, upstream: str) -> HostFile:
    client = table.registry_client(cluster, machine)
    return HostFile(
        f"{CERTS_D}/{registry}/hosts.toml",
        render(
            "containerd/hosts.toml.j2",
            registry=registry,
            upstream=upstream,
            port=ports.REGISTRY_PROXY,
            client_cert=client.cert_path,
            client_key=client.key_path,
            mirrors=mirrors(cluster, registry),
        ),
        mode=0o644,
    )


def _config(cluster: Cluster, facts: Facts) -> HostFile:
    by_digest = images.pulled_by_digest(cluster.artifacts.source)
    return HostFile(
        "/etc/containerd/config.toml",
        render(
            "containerd/config.toml.j2",
            pause_image=images.refs(by_digest=by_digest)["pause"],
            cgroup_version=facts.cgroup_version,
            may_raise_limits=facts.may_raise_limits,
            bin=paths.BIN,
            cni_bin=paths.CNI_BIN,
        ),
        mode=0o644,
    )


def _unit(facts: Facts, environment: tuple[HostFile, ...]) -> HostFile:
    return HostFile(
        f"{paths.UNITS}/containerd.service",
        render(
            "containerd/containerd.service.j2",
            bin=paths.BIN,
            environment=tuple(file.path for file in environment),
            may_raise_limits=facts.may_raise_limits,
        ),
        mode=0o644,
    )


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    cni = tuple(
        Binary(f"cni-plugins/{name}", f"{paths.CNI_BIN}/{name}")
        for name in ("bridge", "loopback", "host-local", "portmap")
    )
    config = _config(cluster, facts)
    environment = _environment(cluster)
    unit = _unit(facts, environment)
    return ComponentState(
        name="containerd",
        directories=(
            Directory("/etc/containerd"),
            Directory(CERTS_D),
            *(Directory(f"{CERTS_D}/{registry}") for registry in registries(cluster)),
            Directory("/etc/cni"),
            Directory(CNI_CONFIG, mode=0o700),
            Directory("/opt/cni"),
            Directory(paths.CNI_BIN),
        ),
        binaries=(
            Binary("containerd/containerd", f"{paths.BIN}/containerd"),
            Binary("containerd/containerd-shim-runc-v2", f"{paths.BIN}/containerd-shim-runc-v2"),
            Binary("containerd/ctr", f"{paths.BIN}/ctr"),
            Binary("runc/runc", f"{paths.BIN}/runc"),
            *cni,
        ),
        leaves=(table.registry_client(cluster, machine),),
        files=(
            config,
            unit,
            *environment,
            *(
                _hosts(cluster, machine, registry, upstream)
                for registry, upstream in registries(cluster).items()
            ),
        ),
        units=(
            # containerd reads the mirrors' files and certificates at every pull.
            Unit(
                "containerd.service",
                reads=(
                    config.path,
                    unit.path,
                    *(file.path for file in environment),
                    f"{paths.BIN}/containerd",
                ),
            ),
        ),
        health=f"{paths.BIN}/ctr version",
        leftovers=(paths.CONTAINERD_DATA, "/run/containerd", "/opt/containerd", CNI_CONFIG),
    )


CONTAINERD = Component(
    "containerd",
    "container runtime",
    ComponentPhase.SERVICES,
    wanted=lambda _, machine: machine.is_node,
    state=_state,
    units=("containerd.service",),
    spaces=(
        Space(paths.BIN, 80, runs=True),
        Space(paths.CNI_BIN, 20, runs=True),
        Space(paths.CONTAINERD_DATA, 500, enough=6000, inodes=5000, runs=True),
    ),
)
