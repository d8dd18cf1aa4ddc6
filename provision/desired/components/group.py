"""On EC2: a unit on every master that approves new workers of the Auto Scaling group and removes
the Nodes of terminated ones.
"""

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
from provision.model.settings.ec2 import Ec2
from provision.pki.trust import Trust

UNIT = "clusterctl-group.service"
SCRIPT = f"{paths.SBIN}/clusterctl-group"
# The group's instances at the time of the file: `ID STATE ADDRESS ...`.
INSTANCES = "/run/clusterctl-group/instances"
LABEL = "clusterctl/group"
# Not the group that `up` uses: a master approves these workers' requests, not Kubernetes.
BOOTSTRAPPERS = "system:bootstrappers:clusterctl-group"
EVERY = 10  # seconds


def group_name(cluster: str) -> str:
    """Give the name of a cluster's Auto Scaling group."""
    return f"clusterctl-{cluster}-workers"


def bucket_url(ec2: Ec2, bucket: str) -> str:
    """Give the URL of the cluster's bucket, without a slash at the end."""
    return f"{ec2.endpoint or f'https://s3.{ec2.region}.amazonaws.com'}/{bucket}"


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    ec2 = cluster.ec2
    unit = HostFile(
        f"{paths.UNITS}/{UNIT}",
        render(
            f"group/{UNIT}.j2",
            cluster=cluster.name,
            script=SCRIPT,
            unit=UNIT.removesuffix(".service"),
        ),
        mode=0o644,
    )
    script = HostFile(
        SCRIPT,
        render(
            "group/clusterctl-group.j2",
            group=group_name(cluster.name),
            region=ec2.region,
            ec2=ec2.api_url,
            s3=bucket_url(ec2, ec2.bucket),
            kubectl=KUBECTL,
            certs=f"{paths.SBIN}/clusterctl-certs",
            instances=INSTANCES,
            label=LABEL,
            bootstrappers=BOOTSTRAPPERS,
            every=EVERY,
        ),
        mode=0o755,
    )
    return ComponentState(
        name="group",
        packages=facts.distribution.packages("curl", "openssl"),
        directories=(Directory(paths.SBIN),),
        files=(script, unit),
        units=(Unit(UNIT),),
        health=f"systemctl is-active --quiet {UNIT}",
    )


GROUP = Component(
    "group",
    "workers of the Auto Scaling group come and go",
    ComponentPhase.CONTROL_PLANE,
    # Also without a group: workers of a group that was removed may still have Nodes.
    wanted=lambda cluster, machine: cluster.source.has_group and machine.is_master,
    state=_state,
    units=(UNIT,),
)
