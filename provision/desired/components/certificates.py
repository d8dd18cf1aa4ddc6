"""Certificates are renewed by a timer on every machine, and approved by a timer on masters."""

from __future__ import annotations

from collections.abc import Iterator

from provision.desired.components import group, haproxy
from provision.desired.components.control_plane import KUBECTL
from provision.desired.components.haproxy import HAPROXY
from provision.desired.components.registry import REGISTRY
from provision.desired.digests import reads
from provision.desired.model import (
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Space,
    Unit,
)
from provision.desired.render import render
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.model.paths import NEW
from provision.pki import table
from provision.pki.authority import BACKDATE
from provision.pki.trust import Trust

PROGRAM = f"{paths.SBIN}/clusterctl-certs"
RENEW = "clusterctl-certs"
APPROVE = "clusterctl-certs-approve"
METRICS = f"{paths.METRICS}/clusterctl-certs.prom"
# Seconds that a machine waits for a master's approval; every master checks every five minutes.
PATIENCE = 1800
# Components whose units read a certificate only at a start or a reload.
RELOADED = (REGISTRY, HAPROXY)


def _reloads(
    cluster: Cluster, machine: Machine, trust: Trust, facts: Facts
) -> Iterator[tuple[str, ...]]:
    """Give the units to reload or restart: (unit, component, systemctl's verb, *files it reads)."""
    for component in RELOADED:
        if not component.wanted(cluster, machine):
            continue
        state = component.state(cluster, machine, trust, facts)
        for unit in state.units:
            verb = "try-reload-or-restart" if unit.reload else "try-restart"
            yield (unit.name, state.name, verb, *reads(unit, state))


def _units(cluster: Cluster, name: str, verb: str, what: str, **times: str) -> tuple[HostFile, ...]:
    return (
        HostFile(
            f"{paths.UNITS}/{name}.service",
            render("certificates/service.j2", summary=what, program=PROGRAM, verb=verb),
            mode=0o644,
        ),
        HostFile(
            f"{paths.UNITS}/{name}.timer",
            render("certificates/timer.j2", summary=f"{what}, of {cluster.name}", **times),
            mode=0o644,
        ),
    )


def _program(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> HostFile:
    client = table.kubelet_client(cluster, machine)
    clients = (table.proxy_probe(cluster, machine), table.registry_client(cluster, machine))
    return HostFile(
        PROGRAM,
        render(
            "certificates/clusterctl-certs.j2",
            machine=machine.name,
            state=paths.STATE,
            record=paths.RECORD,
            lock=paths.LOCK,
            pki=paths.PKI,
            etcd_pki=paths.ETCD_PKI,
            external=cluster.certificates.external,
            kubelet_client=client.cert_path,
            kubelet_key=client.key_path,
            metrics=METRICS,
            new=NEW,
            backdate=round(BACKDATE.total_seconds()),
            patience=PATIENCE,
            api=haproxy.API,
            kubectl=KUBECTL if machine.is_master and not cluster.certificates.external else "",
            kubelet_port=ports.KUBELET,
            instances=group.INSTANCES if group.GROUP.wanted(cluster, machine) else "",
            bootstrappers=group.BOOTSTRAPPERS,
            clients=[leaf.common_name for leaf in clients],
            units=list(_reloads(cluster, machine, trust, facts)),
        ),
        mode=0o755,
    )


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    files = (
        _program(cluster, machine, trust, facts),
        *_units(
            cluster,
            RENEW,
            "renew",
            "Renews certificates that are due",
            first="10min",
            every="12h",
            spread="1h",
        ),
    )
    if machine.is_master and not cluster.certificates.external:
        files += _units(
            cluster,
            APPROVE,
            "approve",
            "Approves what nodes ask for to renew theirs",
            first="2min",
            every="5min",
            spread="30s",
        )
    timers = tuple(f.path for f in files if f.path.endswith(".timer"))
    return ComponentState(
        name="certificates",
        packages=facts.distribution.packages("openssl", *(("curl",) if machine.is_node else ())),
        directories=(Directory(paths.SBIN),),
        files=files,
        # The service reads the program at each run; only its own file concerns a timer.
        units=tuple(Unit(path.rpartition("/")[2], reads=(path,)) for path in timers),
        health="".join(f"systemctl is-active --quiet {t.rpartition('/')[2]} && " for t in timers)
        + "true",
        leftovers=(METRICS,),
        cleanup=(
            f"systemctl stop {RENEW}.service {APPROVE}.service; rm -f {METRICS}; "
            f"rmdir {paths.METRICS} {paths.METRICS.rpartition('/')[0]}"
        ),
    )


CERTIFICATES = Component(
    "certificates",
    "certificates are renewed in time",
    ComponentPhase.SERVICES,
    wanted=lambda *_: True,
    state=_state,
    units=(f"{RENEW}.timer", f"{APPROVE}.timer"),
    spaces=(Space(paths.SBIN, 1, runs=True),),
)
