"""On EC2: load balancers of AWS for Services of type LoadBalancer. Two units on every master.

aws-cloud-controller-manager makes load balancers; its other controllers do not run. It finds a
Node's instance by `spec.providerID`. A small unit of clusterctl writes this field, and the labels
of zone and type. So kubelets need no `--cloud-provider=external`, and no Node waits with a taint
for the Node controller. That controller would expect private DNS names as Nodes' names, and
clusterctl's Nodes have other names.
"""

from __future__ import annotations

from provision.desired.components.control_plane import CA, KUBECTL, own_api_config
from provision.desired.flags import CIPHER_SUITES, flags
from provision.desired.model import (
    Binary,
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Listens,
    Port,
    Unit,
)
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki import table
from provision.pki.trust import Trust

NAME = "aws-cloud-controller-manager"
UNIT = f"{NAME}.service"
INSTANCES = "clusterctl-instances.service"
SCRIPT = f"{paths.SBIN}/clusterctl-instances"
CONFIG = f"{paths.KUBERNETES}/cloud-controller-manager.conf"
ACCOUNT = f"{paths.KUBERNETES}/aws.conf"
EVERY = 5  # seconds between two checks of the Nodes


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    controller, ours = _controller(cluster, machine, facts), _instances(cluster)
    client = table.cloud_controller_manager(cluster, machine)
    serving = table.cloud_controller_manager_serving(cluster, machine)
    config = own_api_config(CONFIG, client, cluster)
    binary = Binary(f"cloud-provider-aws/{NAME}", f"{paths.BIN}/{NAME}")
    read = (config.path, *(file.path for file in controller), binary.path)
    return ComponentState(
        name="cloud-controller",
        packages=facts.distribution.packages("curl"),
        directories=(Directory(paths.SBIN),),
        binaries=(binary,),
        leaves=(client, serving),
        files=(config, *controller, *ours),
        units=(
            Unit(
                UNIT,
                reads=(*read, CA, f"{paths.PKI}/front-proxy-ca.crt"),
                rereads=(client.cert_path, serving.cert_path),
            ),
            Unit(INSTANCES, reads=tuple(file.path for file in ours)),
        ),
        health=f"systemctl is-active --quiet {UNIT} {INSTANCES}",
    )


def _controller(cluster: Cluster, machine: Machine, facts: Facts) -> tuple[HostFile, ...]:
    serving = table.cloud_controller_manager_serving(cluster, machine)
    arguments = {
        "authentication-kubeconfig": CONFIG,
        # The other flags have all values that the controller would look up.
        "authentication-skip-lookup": "true",
        "authorization-kubeconfig": CONFIG,
        "bind-address": "127.0.0.1",
        "client-ca-file": CA,
        "cloud-config": ACCOUNT,
        "cloud-provider": "aws",
        "cluster-name": cluster.name,
        "configure-cloud-routes": "false",
        "controllers": "service-lb-controller",
        "kubeconfig": CONFIG,
        "leader-elect": "true",
        "profiling": "false",
        "requestheader-client-ca-file": f"{paths.PKI}/front-proxy-ca.crt",
        "secure-port": str(ports.CLOUD_CONTROLLER_MANAGER),
        "tls-cert-file": serving.cert_path,
        "tls-cipher-suites": ",".join(CIPHER_SUITES),
        "tls-min-version": "VersionTLS12",
        "tls-private-key-file": serving.key_path,
    }
    account = render(
        "cloud-controller/aws.conf.j2", region=cluster.ec2.region, cluster=cluster.name
    )
    unit = render(
        f"cloud-controller/{UNIT}.j2",
        bin=paths.BIN,
        endpoint=cluster.ec2.endpoint,
        may_raise_limits=facts.may_raise_limits,
        flags=flags(arguments, {}),
    )
    return HostFile(ACCOUNT, account), HostFile(f"{paths.UNITS}/{UNIT}", unit)


def _instances(cluster: Cluster) -> tuple[HostFile, ...]:
    ec2 = cluster.ec2
    script = render(
        "cloud-controller/clusterctl-instances.j2",
        cluster=cluster.name,
        region=ec2.region,
        ec2=ec2.api_url,
        kubectl=KUBECTL,
        every=EVERY,
    )
    unit = render(f"cloud-controller/{INSTANCES}.j2", cluster=cluster.name, script=SCRIPT)
    return (
        HostFile(SCRIPT, script, mode=0o755),
        HostFile(f"{paths.UNITS}/{INSTANCES}", unit, mode=0o644),
    )


CLOUD_CONTROLLER = Component(
    "cloud-controller",
    "load balancers of AWS for Services",
    ComponentPhase.CONTROL_PLANE,
    wanted=lambda cluster, machine: cluster.source.has_cloud_controller and machine.is_master,
    state=_state,
    units=(UNIT, INSTANCES),
    ports=(Port(ports.CLOUD_CONTROLLER_MANAGER, "the cloud controller", listens=Listens.LOOPBACK),),
)
