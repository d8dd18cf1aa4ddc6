"""The pod network `routed`: a bridge on each node, and BIRD announcing its pods to the others.

A VPC carries no OSPF: on EC2 its route table knows the pods, see `vpc_routes`.
"""

from __future__ import annotations

from provision.desired.components.containerd import CNI_CONFIG, CNI_TEMPLATE
from provision.desired.model import Component, ComponentState, Directory, HostFile, Unit
from provision.desired.packages import of_distribution
from provision.desired.render import render, text
from provision.model import paths
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.trust import Trust

CONFIG = f"{paths.CONFIG}/bird.conf"
ROUTES = f"{paths.CONFIG}/bird.d"
RULES = f"{paths.CONFIG}/masquerade.nft"
TABLE = "ip clusterctl"
MASQUERADE = "clusterctl-masquerade.service"
SOCKET = "/run/clusterctl-bird/bird.ctl"
SCRIPT = f"{paths.SBIN}/clusterctl-pod-cidr"
LEASES = "/var/lib/cni/networks/pods"  # host-local's, named after the network
CONFLIST = f"{CNI_CONFIG}/10-containerd-net.conflist"  # containerd's own name for it


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    def unit(name: str, **values: object) -> HostFile:
        content = render(f"pod-network/{name}.j2", cluster=cluster.name, **values)
        return HostFile(f"{paths.UNITS}/{name}", content, mode=0o644)

    bird = HostFile(
        CONFIG,
        render(
            "pod-network/bird.conf.j2",
            address=machine.address,
            routes=ROUTES,
            pods=cluster.networks.pods,
            interface=facts.interface,
            password=trust.network_key,
        ),
        mode=0o640,
        group="bird",
        secret=True,
    )
    rules = HostFile(
        RULES, render("pod-network/masquerade.nft.j2", pods=cluster.networks.pods), mode=0o644
    )
    bird_unit = unit("clusterctl-bird.service", config=CONFIG, socket=SOCKET)
    announcer = unit("clusterctl-pod-cidr.service", script=SCRIPT)
    masquerade = unit(MASQUERADE, rules=RULES)
    bird_units = (Unit("clusterctl-bird.service", reload=True, reads=(bird.path, bird_unit.path)),)
    by_bird = cluster.source != "ec2"
    return ComponentState(
        name="pod-network",
        packages=of_distribution(facts, "bird2") if by_bird else (),
        directories=(
            Directory(paths.CONFIG),
            Directory(paths.SBIN),
            *((Directory(ROUTES, mode=0o750, group="bird"),) if by_bird else ()),
            Directory("/var/lib/cni", mode=0o700),
            Directory("/var/lib/cni/networks", mode=0o700),
            Directory(LEASES, mode=0o700),
        ),
        files=(
            *((bird,) if by_bird else ()),
            rules,
            HostFile(
                CNI_TEMPLATE,
                text("pod-network/cni.conf.template").replace(
                    b"@MTU@", str(cluster.networks.mtu).encode()
                ),
                mode=0o644,
            ),
            HostFile(
                SCRIPT,
                render("pod-network/pod-cidr.j2", bird=by_bird, routes=ROUTES, socket=SOCKET),
                mode=0o755,
            ),
            # host-local would make it 0750 (CIS 1.1.9); it opens one that is there as it is.
            HostFile(f"{LEASES}/lock", b""),
            *((bird_unit,) if by_bird else ()),
            masquerade,
            announcer,
        ),
        units=(
            *(bird_units if by_bird else ()),
            Unit(MASQUERADE, reload=True, reads=(rules.path, masquerade.path)),
            Unit("clusterctl-pod-cidr.service", reads=(SCRIPT, announcer.path)),
        ),
        health=f"systemctl is-active --quiet clusterctl-{'bird' if by_bird else 'pod-cidr'}.service",
        leftovers=(CONFLIST, "/var/lib/cni", *((ROUTES,) if by_bird else ())),
        cleanup=(
            # Pods that lose their network end; where there is another one, kubelet starts them
            # again in that.
            f"rm -f {CONFLIST}; "
            "for n in /run/netns/cni-*; do kill -9 $(ip netns pids ${n##*/}); done; "
            "for v in $(ip -o link show master cni0 | awk -F '[ @:]+' '{print $2}'); do "
            "ip link del $v; done; ip link del cni0; "
            f"ip route flush proto bird root {cluster.networks.pods}; "
            f"nft delete table inet cni_hostport; nft delete table {TABLE}"
        ),
    )


POD_NETWORK = Component(
    "pod-network",
    "routes to the pods of the other nodes",
    lambda cluster, machine: machine.is_node and cluster.networks.plugin == "routed",
    _state,
)
