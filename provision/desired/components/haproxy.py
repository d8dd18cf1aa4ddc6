"""HAProxy on every node's loopback: it connects to the apiservers and registries of all masters."""

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
    Unit,
    Who,
)
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki import table
from provision.pki.trust import Trust

CONFIG = f"{paths.CONFIG}/haproxy.cfg"
UNIT = "clusterctl-haproxy.service"
# Old versions of HAProxy want a certificate and its key in one file. The unit makes it.
JOINED = "/run/clusterctl-haproxy/probe.pem"
API = f"https://127.0.0.1:{ports.API_PROXY}"


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    probe = table.proxy_probe(cluster, machine)
    joined = () if facts.distribution.haproxy_reads_key else (probe.cert_path, probe.key_path)
    return ComponentState(
        name="haproxy",
        packages=facts.distribution.packages("haproxy"),
        directories=(Directory(paths.CONFIG),),
        leaves=(probe,),
        files=(
            HostFile(
                CONFIG,
                render(
                    "haproxy/haproxy.cfg.j2",
                    name=machine.name,
                    own=machine.is_master,
                    masters=cluster.masters,
                    ca=f"{paths.PKI}/ca.crt",
                    cert=JOINED if joined else probe.cert_path,
                    any_names=not facts.distribution.haproxy_wants_own_names,
                    api=ports.API,
                    registry=ports.REGISTRY,
                    api_proxy=ports.API_PROXY,
                    registry_proxy=ports.REGISTRY_PROXY,
                    monitor=ports.API_MONITOR,
                ),
                mode=0o644,
            ),
            HostFile(
                f"{paths.UNITS}/{UNIT}",
                render(
                    f"haproxy/{UNIT}.j2",
                    cluster=cluster.name,
                    config=CONFIG,
                    parts=" ".join(joined),
                    joined=JOINED,
                ),
                mode=0o644,
            ),
        ),
        units=(Unit(UNIT, reload=True, also=(f"{paths.PKI}/ca.crt",)),),
        health=health.listens(UNIT, "127.0.0.1", ports.API_PROXY),
    )


HAPROXY = Component(
    "haproxy",
    "this node's own way to every apiserver and registry",
    ComponentPhase.SERVICES,
    wanted=lambda _, machine: machine.is_node,
    state=_state,
    units=(UNIT,),
    ports=(
        Port(ports.API_PROXY, "the API's proxy", listens=Listens.LOOPBACK),
        Port(ports.REGISTRY_PROXY, "the registries' proxy", listens=Listens.LOOPBACK),
        Port(
            ports.API_MONITOR,
            "HAProxy's monitor",
            allow=(Allow(Who.HEALTH_CHECKS),),
            on=lambda machine: machine.is_master,
        ),
    ),
)
