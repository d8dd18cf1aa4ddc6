"""The pod network `routed`: a bridge on each node; BIRD announces the node's pods to the others.

A VPC carries no OSPF. On EC2 the VPC's route table has the routes to pods, see `vpc_routes`.
"""

from __future__ import annotations

from provision.desired.components import haproxy
from provision.desired.components.containerd import CNI_CONFIG
from provision.desired.model import (
    Allow,
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Listens,
    Port,
    Protocol,
    Unit,
    Who,
)
from provision.desired.render import render, text
from provision.model import paths
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki import table
from provision.pki.trust import Trust

CONFIG = f"{paths.CONFIG}/bird.conf"
ROUTES = f"{paths.CONFIG}/bird.d"
RULES = f"{paths.CONFIG}/masquerade.nft"
TABLE = "ip clusterctl"
BIRD = "clusterctl-bird.service"
MASQUERADE = "clusterctl-masquerade.service"
POD_CIDR = "clusterctl-pod-cidr.service"
SOCKET = "/run/clusterctl-bird/bird.ctl"
SCRIPT = f"{paths.SBIN}/clusterctl-pod-cidr"
LEASES = "/var/lib/cni/networks/pods"  # host-local's directory, named after the network
RESULTS = "/var/lib/cni/results"  # the CNI results of each pod
# The name that containerd gave this file in clusters of earlier versions.
CONFLIST = f"{CNI_CONFIG}/10-containerd-net.conflist"
TEMPLATE = f"{paths.CONFIG}/cni.conflist"


def _bird_config(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> HostFile:
    return HostFile(
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


def _cleanup(cluster: Cluster) -> str:
    """Pods that lose their network end. Under another plug-in the kubelet starts them again."""
    return (
        f"rm -f {CONFLIST}; "
        "for n in /run/netns/cni-*; do kill -9 $(ip netns pids ${n##*/}); done; "
        "for v in $(ip -o link show master cni0 | awk -F '[ @:]+' '{print $2}'); do "
        "ip link del $v; done; ip link del cni0; "
        f"ip route flush proto bird root {cluster.networks.pods}; "
        f"nft delete table ip cni_hostport; nft delete table ip6 cni_hostport; "
        f"nft delete table {TABLE}"
    )


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    def unit(name: str, **values: object) -> HostFile:
        content = render(f"pod-network/{name}.j2", cluster=cluster.name, **values)
        return HostFile(f"{paths.UNITS}/{name}", content, mode=0o644)

    bird = _bird_config(cluster, machine, trust, facts)
    rules = HostFile(
        RULES, render("pod-network/masquerade.nft.j2", pods=cluster.networks.pods), mode=0o644
    )
    bird_unit = unit(BIRD, config=CONFIG, socket=SOCKET)
    announcer = unit(POD_CIDR, script=SCRIPT)
    masquerade = unit(MASQUERADE, rules=RULES)
    bird_units = (Unit(BIRD, reload=True, reads=(bird.path, bird_unit.path)),)
    by_bird = not cluster.source.routes_pods
    client = table.kubelet_client(cluster, machine)
    template = HostFile(TEMPLATE, text("pod-network/cni.conflist"), mode=0o644)
    program = HostFile(
        SCRIPT,
        render(
            "pod-network/pod-cidr.j2",
            bird=by_bird,
            node=machine.name,
            address=machine.address,
            mtu=cluster.networks.mtu,
            conflist=TEMPLATE,
            config=CONFLIST,
            leases=LEASES,
            results=RESULTS,
            portmap=f"{paths.CNI_BIN}/portmap",
            api=haproxy.API,
            authority=f"{paths.PKI}/ca.crt",
            client=client.cert_path,
            key=client.key_path,
            routes=ROUTES,
            socket=SOCKET,
        ),
        mode=0o755,
    )
    return ComponentState(
        name="pod-network",
        packages=facts.distribution.packages("bird2") if by_bird else (),
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
            template,
            program,
            # host-local would make this file with mode 0750, which violates CIS 1.1.9. It keeps the
            # mode of an existing file.
            HostFile(f"{LEASES}/lock", b""),
            *((bird_unit,) if by_bird else ()),
            masquerade,
            announcer,
        ),
        units=(
            *(bird_units if by_bird else ()),
            Unit(MASQUERADE, reload=True, reads=(rules.path, masquerade.path)),
            Unit(POD_CIDR, reads=(program.path, template.path, announcer.path)),
        ),
        health=f"birdc -s {SOCKET} show status"
        if by_bird
        else f"systemctl is-active --quiet {POD_CIDR}",
        leftovers=(CONFLIST, "/var/lib/cni", *((ROUTES,) if by_bird else ())),
        cleanup=_cleanup(cluster),
    )


POD_NETWORK = Component(
    "pod-network",
    "routes to the pods of the other nodes",
    ComponentPhase.SERVICES,
    wanted=lambda cluster, machine: machine.is_node and cluster.networks.plugin == "routed",
    state=_state,
    units=(BIRD, MASQUERADE, POD_CIDR),
    ports=(
        Port(
            0,
            "OSPF",
            allow=(Allow(Who.MACHINES),),
            listens=Listens.NOWHERE,
            protocol=Protocol.OSPF,
        ),
    ),
)
