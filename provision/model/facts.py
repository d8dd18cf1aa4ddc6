"""What clusterctl can learn only from the machine itself."""

from __future__ import annotations

from dataclasses import dataclass

from provision.model.distribution import Distribution


@dataclass(frozen=True)
class Facts:
    """What the pure functions need to know about a machine, and only the machine can tell.

    Attributes:
        arch: `amd64` or `arm64`.
        distribution: packages and the syntax of some files depend on it.
        interface: the interface that carries the machine's address.
        network: the interface's own network, `10.77.0.0/24`.
        cgroup_version: 1 or 2.
        container: whether the machine is itself a container (the lab).
        may_raise_limits: whether it has CAP_SYS_RESOURCE.
        resolv_conf: the file that kubelet hands to pods; if possible, one without a resolver on a
            loopback address, which would make CoreDNS ask itself.
        ssh_ports: the ports of its SSH server that the probe found.
    """

    arch: str
    distribution: Distribution
    interface: str
    network: str
    cgroup_version: int
    container: bool
    may_raise_limits: bool
    resolv_conf: str
    ssh_ports: tuple[int, ...] = ()
