"""An image registry on every master, so that AlwaysPullImages works without the internet."""

from __future__ import annotations

from provision.desired import health
from provision.desired.model import (
    Allow,
    Binary,
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Listens,
    Port,
    Space,
    Unit,
    Who,
)
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki import table
from provision.pki.trust import Trust

CONFIG = f"{paths.CONFIG}/registry.yml"
UNIT = "clusterctl-registry.service"


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    leaf = table.registry(cluster, machine)
    return ComponentState(
        name="registry",
        directories=(Directory(paths.REGISTRY),),
        binaries=(Binary("registry/registry", f"{paths.BIN}/registry"),),
        leaves=(leaf,),
        files=(
            HostFile(
                CONFIG,
                render(
                    "registry/config.yml.j2",
                    storage=paths.REGISTRY,
                    address=machine.address,
                    port=ports.REGISTRY,
                    cert=leaf.cert_path,
                    key=leaf.key_path,
                    ca=f"{paths.PKI}/ca.crt",
                ),
            ),
            HostFile(
                f"{paths.UNITS}/{UNIT}",
                render(
                    f"registry/{UNIT}.j2",
                    cluster=cluster.name,
                    bin=paths.BIN,
                    config=CONFIG,
                ),
                mode=0o644,
            ),
        ),
        units=(Unit(UNIT, also=(f"{paths.PKI}/ca.crt",)),),
        health=health.listens(UNIT, str(machine.address), ports.REGISTRY),
        leftovers=(paths.REGISTRY,),
    )


REGISTRY = Component(
    "registry",
    "images for the nodes",
    ComponentPhase.SERVICES,
    wanted=lambda _, machine: machine.is_master,
    state=_state,
    units=(UNIT,),
    ports=(
        Port(
            ports.REGISTRY,
            "registry",
            allow=(Allow(Who.MACHINES),),
            listens=Listens.MACHINE,
        ),
    ),
    spaces=(Space(paths.BIN, 20, runs=True), Space(paths.REGISTRY, 150)),
)
