"""keepalived: the API's virtual address, for clients outside the cluster."""

from __future__ import annotations

from provision.desired import health
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
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.trust import Trust

CONFIG = f"{paths.CONFIG}/keepalived.conf"
CHECK = f"{paths.SBIN}/clusterctl-check-apiserver"
UNIT = "clusterctl-keepalived.service"


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    vip = cluster.api.vip
    assert vip is not None  # noqa: S101 - `wanted` has checked it
    masters = cluster.masters
    return ComponentState(
        name="keepalived",
        packages=facts.distribution.packages("keepalived"),
        directories=(Directory(paths.CONFIG), Directory(paths.SBIN)),
        files=(
            HostFile(
                CONFIG,
                render(
                    "keepalived/keepalived.conf.j2",
                    name=machine.name,
                    check=CHECK,
                    interface=facts.interface,
                    # Different virtual addresses in one network have different IDs.
                    router_id=int(vip) % 255 + 1,
                    priority=200 - masters.index(machine),
                    address=machine.address,
                    peers=[m.address for m in masters if m != machine],
                    vip=vip,
                ),
            ),
            HostFile(
                CHECK, render("keepalived/check-apiserver.j2", monitor=ports.API_MONITOR), 0o755
            ),
            HostFile(
                f"{paths.UNITS}/{UNIT}",
                render(
                    "keepalived/clusterctl-keepalived.service.j2",
                    vip=vip,
                    cluster=cluster.name,
                    config=CONFIG,
                ),
                mode=0o644,
            ),
        ),
        units=(Unit(UNIT),),
        # keepalived has no health endpoint, and systemd restarts it one second after its end.
        health=health.runs_for(UNIT, 2),
        cleanup=f"ip address del {vip}/32 dev {facts.interface}",
    )


KEEPALIVED = Component(
    "keepalived",
    "the API's virtual address",
    ComponentPhase.CONTROL_PLANE,
    wanted=lambda cluster, machine: machine.is_master and cluster.api.vip is not None,
    state=_state,
    units=(UNIT,),
    ports=(
        Port(
            0,
            "VRRP",
            allow=(Allow(Who.MASTERS),),
            listens=Listens.NOWHERE,
            protocol=Protocol.VRRP,
        ),
    ),
)
