"""On EC2: a unit on every master that maintains the routes to pods in the VPC's route table."""

from __future__ import annotations

from provision.desired.components.control_plane import KUBECTL
from provision.desired.model import (
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Unit,
)
from provision.desired.render import render
from provision.model import paths
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki.trust import Trust

UNIT = "clusterctl-vpc-routes.service"
SCRIPT = f"{paths.SBIN}/clusterctl-vpc-routes"
AGAIN = 60  # seconds after which the unit checks the table even if no Node has changed


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    ec2 = cluster.ec2
    unit = HostFile(
        f"{paths.UNITS}/{UNIT}",
        render(f"vpc-routes/{UNIT}.j2", cluster=cluster.name, script=SCRIPT),
        mode=0o644,
    )
    script = HostFile(
        SCRIPT,
        render(
            "vpc-routes/vpc-routes.j2",
            cluster=cluster.name,
            region=ec2.region,
            ec2=ec2.api_url,
            kubectl=KUBECTL,
            pods=cluster.networks.pods,
            again=AGAIN,
        ),
        mode=0o755,
    )
    return ComponentState(
        name="vpc-routes",
        packages=facts.distribution.packages("curl"),
        directories=(Directory(paths.SBIN),),
        files=(script, unit),
        units=(Unit(UNIT),),
        health=f"systemctl is-active --quiet {UNIT}",
    )


VPC_ROUTES = Component(
    "vpc-routes",
    "the pods' routes in the VPC's table",
    ComponentPhase.CONTROL_PLANE,
    wanted=lambda cluster, machine: (
        cluster.source.routes_pods and machine.is_master and cluster.networks.plugin == "routed"
    ),
    state=_state,
    units=(UNIT,),
)
