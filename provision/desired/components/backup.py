"""Snapshots that every master takes by itself, and copies of them outside the cluster.

Each master takes its own snapshots, at its own time. So every master has snapshots, and the masters
need neither a leader nor each other.
"""

from __future__ import annotations

from provision.desired import etcd_programs
from provision.desired.model import (
    Binary,
    Component,
    ComponentPhase,
    ComponentState,
    Directory,
    HostFile,
    Space,
    Unit,
)
from provision.desired.render import render
from provision.model import paths
from provision.model.backup_place import S3Place, SshPlace, place
from provision.model.cluster import Cluster, Machine
from provision.model.facts import Facts
from provision.pki import age
from provision.pki.trust import Trust

DIRECTORY = f"{paths.CONFIG}/backup"
INVENTORY = f"{DIRECTORY}/inventory.py"
RECIPIENTS = f"{DIRECTORY}/recipients"
SSH_KEY = f"{DIRECTORY}/ssh-key"
KNOWN_HOSTS = f"{DIRECTORY}/known_hosts"
CURL = f"{DIRECTORY}/curl"
SNAPSHOT = f"{paths.SBIN}/clusterctl-snapshot"
PROGRAM = f"{paths.SBIN}/clusterctl-backup"
SERVICE = "clusterctl-backup.service"
TIMER = "clusterctl-backup.timer"


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    backup = cluster.backup
    to = place(backup)
    recipients = (age.recipient(age.identity(trust)), *backup.recipients)
    snapshot = etcd_programs.snapshot(cluster, machine, state=f"{paths.BACKUPS}/.work")
    timer = HostFile(
        f"{paths.UNITS}/{TIMER}",
        render(f"backup/{TIMER}.j2", cluster=cluster.name, hours=backup.hours),
        0o644,
    )
    service = HostFile(
        f"{paths.UNITS}/{SERVICE}",
        render(f"backup/{SERVICE}.j2", program=PROGRAM, restoring=paths.RESTORING, to=to),
        0o644,
    )
    # With etcd on separate machines, masters do not have the programs of etcd yet.
    tools = () if machine.has_etcd else ("etcdctl", "etcdutl")
    return ComponentState(
        name="backup",
        packages=facts.distribution.packages(*_packages(to)),
        directories=(
            Directory(paths.CONFIG),
            Directory(DIRECTORY, mode=0o700),
            Directory(paths.SBIN),
        ),
        binaries=(
            Binary("age/age", f"{paths.BIN}/age"),
            *(Binary(f"etcd/{name}", f"{paths.BIN}/{name}") for name in tools),
        ),
        files=(
            HostFile(INVENTORY, cluster.files.inventory.encode(), secret=True),
            HostFile(RECIPIENTS, "".join(f"{r}\n" for r in recipients).encode()),
            *_credentials(cluster, to),
            HostFile(SNAPSHOT, f"#!/bin/sh\n{snapshot}".encode(), 0o755),
            HostFile(PROGRAM, _program(cluster, machine, to), 0o755),
            service,
            timer,
        ),
        # The service reads all other files at each run; only its own file concerns the timer.
        units=(Unit(TIMER, reads=(timer.path,)),),
        health=f"systemctl is-active --quiet {TIMER}",
        leftovers=(paths.BACKUPS,),
        cleanup=f"systemctl stop {SERVICE}; systemctl reset-failed {SERVICE}",
    )


def _packages(to: SshPlace | S3Place | None) -> tuple[str, ...]:
    match to:
        case SshPlace():
            return ("openssh-client",)
        case S3Place():
            return ("curl",)
    return ()


def _program(cluster: Cluster, machine: Machine, to: SshPlace | S3Place | None) -> bytes:
    return render(
        "backup/clusterctl-backup.j2",
        cluster=cluster.name,
        machine=machine.name,
        snapshot=SNAPSHOT,
        inventory=INVENTORY,
        age=f"{paths.BIN}/age",
        recipients=RECIPIENTS,
        directory=paths.BACKUPS,
        hours=cluster.backup.hours,
        keep=cluster.backup.keep,
        days=cluster.backup.days,
        to=to,
        ssh=isinstance(to, SshPlace),
        ssh_key=SSH_KEY,
        known_hosts=KNOWN_HOSTS,
        curl=CURL,
        role=isinstance(to, S3Place) and not cluster.backup.s3_access_key,
        region=cluster.backup.s3_region,
    )


def _credentials(cluster: Cluster, to: SshPlace | S3Place | None) -> tuple[HostFile, ...]:
    backup = cluster.backup
    match to:
        case SshPlace():
            known = f"{to.known_as} {backup.ssh_host_key}\n"
            return (
                HostFile(SSH_KEY, cluster.files.ssh_key.encode(), secret=True),
                HostFile(KNOWN_HOSTS, known.encode()),
            )
        # Without an access key, the program asks the EC2 instance for the credentials of its role.
        case S3Place() if backup.s3_access_key:
            content = (
                f'user = "{backup.s3_access_key}:{backup.s3_secret_key}"\n'
                f'aws-sigv4 = "aws:amz:{backup.s3_region}:s3"\n'
            )
            return (HostFile(CURL, content.encode(), secret=True),)
    return ()


BACKUP = Component(
    "backup",
    "snapshots that masters take by themselves",
    ComponentPhase.CONTROL_PLANE,
    wanted=lambda cluster, machine: machine.is_master and cluster.backup.enabled,
    state=_state,
    units=(TIMER, SERVICE),
    spaces=(Space(paths.BIN, 10, runs=True), Space(paths.BACKUPS, 50, enough=500)),
)
