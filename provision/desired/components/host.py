"""The machine: kernel settings and tools that all other components need."""

from __future__ import annotations

from provision.desired.model import (
    Allow,
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Listens,
    Port,
    Space,
    Who,
)
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.authority import Authority
from provision.pki.trust import Trust


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    packages = facts.distribution.packages("zstd")
    if not machine.is_node:
        return ComponentState(name="host", packages=packages)
    modules = ["overlay", "nf_conntrack"]
    sysctls = [
        ("net.ipv4.ip_forward", "1"),
        # The values that kubelet's --protect-kernel-defaults requires.
        ("vm.overcommit_memory", "1"),
        ("kernel.panic", "10"),
        ("kernel.panic_on_oops", "1"),
    ]
    if cluster.networks.proxy_mode == "iptables":
        modules.append("br_netfilter")
        sysctls.append(("net.bridge.bridge-nf-call-iptables", "1"))
    if facts.container:
        # A container shares the kernel: it can set only values of its network namespace.
        sysctls = [(key, value) for key, value in sysctls if key.startswith("net.")]
    tools = ["conntrack", "nftables", "ethtool", "kmod", "iproute2"]
    if cluster.networks.proxy_mode == "iptables":
        tools.append("iptables")
    return ComponentState(
        name="host",
        packages=packages + facts.distribution.packages(*tools),
        directories=(Directory(paths.KUBERNETES), Directory(paths.PKI), Directory(paths.CONFIG)),
        files=(
            HostFile(
                paths.SYSCTLS,
                render("host/sysctl.conf.j2", sysctls=sysctls),
                mode=0o644,
            ),
            HostFile(
                "/etc/modules-load.d/clusterctl.conf",
                render("host/modules.conf.j2", modules=modules),
                mode=0o644,
            ),
            HostFile(Authority.KUBERNETES.cert_path, trust.bundle(Authority.KUBERNETES), 0o644),
        ),
        sysctls=tuple(sysctls),
        modules=tuple(modules),
    )


HOST = Component(
    "host",
    "kernel settings, tools, the cluster's authority",
    ComponentPhase.SERVICES,
    wanted=lambda *_: True,
    state=_state,
    ports=(
        Port(
            ports.ARTIFACTS,
            "artifacts",
            allow=(Allow(Who.MACHINES, "while they are copied"),),
            listens=Listens.MACHINE,
        ),
    ),
    spaces=(Space("/etc", 10), Space(paths.STATE, 200)),
)
