"""etcd: one member on each machine with the role `etcd`."""

from __future__ import annotations

from collections.abc import Mapping

from provision.desired.flags import flags
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
from provision.pki.authority import Authority
from provision.pki.leaf import Leaf
from provision.pki.trust import Trust

UNIT = "etcd.service"
CA = f"{paths.ETCD_PKI}/ca.crt"
# The address at which a machine queries its own member.
LOCAL = f"https://127.0.0.1:{ports.ETCD_CLIENT}"


def peer_url(machine: Machine) -> str:
    return f"https://{machine.address}:{ports.ETCD_PEER}"


def client_url(machine: Machine) -> str:
    return f"https://{machine.address}:{ports.ETCD_CLIENT}"


def etcdctl(cluster: Cluster, machine: Machine, timeout: int = 3) -> str:
    """Give the command line that queries this machine's own member, up to the subcommand.

    Args:
        timeout: seconds for one command.
    """
    client = table.etcd_healthcheck(cluster, machine)
    return (
        f"{paths.BIN}/etcdctl --command-timeout={timeout}s --endpoints={LOCAL} "
        f"--cacert={CA} --cert={client.cert_path} --key={client.key_path}"
    )


def join_file(state: str, members: Mapping[str, str]) -> HostFile:
    """Give the marker that allows an empty member to start. It has the settings for joining.

    Args:
        state: `new` for the first members of a new cluster, `existing` to join a cluster.
        members: name -> peer URL of all members, this one included.
    """
    initial = ",".join(f"{name}={url}" for name, url in members.items())
    content = f"ETCD_INITIAL_CLUSTER={initial}\nETCD_INITIAL_CLUSTER_STATE={state}\n"
    return HostFile(paths.ETCD_JOIN, content.encode())


def _unit(cluster: Cluster, machine: Machine, facts: Facts, server: Leaf, peer: Leaf) -> HostFile:
    arguments = {
        "name": machine.name,
        "data-dir": paths.ETCD_DATA,
        "listen-peer-urls": peer_url(machine),
        "initial-advertise-peer-urls": peer_url(machine),
        "listen-client-urls": f"{client_url(machine)},{LOCAL}",
        "advertise-client-urls": client_url(machine),
        "listen-metrics-urls": f"http://127.0.0.1:{ports.ETCD_METRICS}",
        "initial-cluster-token": cluster.name,
        "cert-file": server.cert_path,
        "key-file": server.key_path,
        "trusted-ca-file": CA,
        "client-cert-auth": "true",
        "peer-cert-file": peer.cert_path,
        "peer-key-file": peer.key_path,
        "peer-trusted-ca-file": CA,
        "peer-client-cert-auth": "true",
        "tls-min-version": "TLS1.2",
        "quota-backend-bytes": str(8 * 1024**3),
        "snapshot-count": "10000",
        "feature-gates": "CompactHashCheck=true",
        "log-level": "info",
    }
    return HostFile(
        f"{paths.UNITS}/{UNIT}",
        render(
            "etcd/etcd.service.j2",
            name=machine.name,
            cluster=cluster.name,
            data_dir=paths.ETCD_DATA,
            join=paths.ETCD_JOIN,
            bin=paths.BIN,
            may_raise_limits=facts.may_raise_limits,
            flags=flags(arguments, cluster.extra_args.get("etcd", {})),
        ),
    )


def _state(cluster: Cluster, machine: Machine, trust: Trust, facts: Facts) -> ComponentState:
    server = table.etcd_server(cluster, machine)
    peer = table.etcd_peer(cluster, machine)
    healthcheck = table.etcd_healthcheck(cluster, machine)
    unit = _unit(cluster, machine, facts, server, peer)
    ctl = etcdctl(cluster, machine)
    return ComponentState(
        name="etcd",
        users=("etcd",),
        directories=(
            Directory(paths.ETCD, owner="etcd", group="etcd", mode=0o755),
            Directory(paths.ETCD_PKI, owner="etcd", group="etcd", mode=0o755),
            Directory(paths.ETCD_DATA, owner="etcd", group="etcd", mode=0o700),
        ),
        binaries=tuple(
            Binary(f"etcd/{name}", f"{paths.BIN}/{name}") for name in ("etcd", "etcdctl", "etcdutl")
        ),
        leaves=(server, peer, healthcheck),
        files=(
            HostFile(
                CA,
                trust.bundle(Authority.ETCD),
                mode=0o644,
                owner="etcd",
                group="etcd",
            ),
            unit,
            *_authority_key(machine, trust),
        ),
        # etcd reads its certificates at every connection (etcd's security guide).
        units=(Unit(UNIT, reads=(unit.path, CA, f"{paths.BIN}/etcd")),),
        # A member is healthy when it answers a linearizable read. After that it may start without
        # the marker.
        health=(
            f"{ctl} endpoint health >/dev/null && touch {paths.ETCD_FORMED} "
            f"&& rm -f {paths.ETCD_JOIN}"
        ),
        leftovers=(paths.ETCD_DATA, paths.ETCD),
    )


def _authority_key(machine: Machine, trust: Trust) -> tuple[HostFile, ...]:
    """Give the key with which a machine that is not a master renews its member's certificates."""
    if machine.is_master or trust.etcd.key is None:
        return ()
    return (HostFile(f"{paths.ETCD_PKI}/ca.key", trust.etcd.key, secret=True),)


ETCD = Component(
    "etcd",
    "the cluster's memory",
    ComponentPhase.ETCD,
    wanted=lambda _, machine: machine.has_etcd,
    state=_state,
    units=(UNIT,),
    ports=(
        Port(
            ports.ETCD_CLIENT,
            "etcd",
            allow=(Allow(Who.MASTERS, "from apiservers"), Allow(Who.MEMBERS, "from members")),
            listens=Listens.MACHINE,
        ),
        Port(
            ports.ETCD_PEER,
            "etcd",
            allow=(Allow(Who.MEMBERS, "from members"),),
            listens=Listens.MACHINE,
        ),
        Port(ports.ETCD_CLIENT, "etcd", listens=Listens.LOOPBACK),
        Port(ports.ETCD_METRICS, "etcd", listens=Listens.LOOPBACK),
    ),
    spaces=(
        Space(paths.BIN, 70, runs=True),
        # Two write-ahead logs of 64 MiB, and the database twice while it is defragmented. With
        # less than 2 GiB, the disk may be full before the database reaches its quota.
        Space(paths.ETCD_DATA, 300, enough=2048),
    ),
)
