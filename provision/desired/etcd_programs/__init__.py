"""The shell programs that run on members and masters. Pure: values in, text out."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from typing import Literal

from provision.desired.components import etcd
from provision.desired.components.control_plane import KUBECTL, OWN_API
from provision.model import paths, ports
from provision.model.cluster import Cluster, Machine
from provision.model.snapshot import Manifest
from provision.pki import table
from provision.pki.leaf import Leaf
from provision.pki.trust import PATHS

COMMAND_TIMEOUT = "5s"
Action = Literal["compact", "defrag", "disarm"]
CONTROL_PLANE = (
    "kube-apiserver.service",
    "kube-controller-manager.service",
    "kube-scheduler.service",
)


@dataclass(frozen=True)
class Target:
    """The target of a restore. It must be the same for all members, or their data would differ.

    Attributes:
        sha256: of the database.
        bump: number added to revisions, so that no client sees a revision twice.
        members: names of the members, sorted.
    """

    sha256: str
    bump: int
    members: tuple[str, ...]

    @property
    def id(self) -> str:
        """Give a short hash of all attributes."""
        text = f"{self.sha256} {self.bump} {' '.join(self.members)}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def status(cluster: Cluster, machine: Machine) -> str:
    """Prints the state of a machine's own member, for `provision.commands.etcd.status`."""
    return _program("status", **_client(table.etcd_healthcheck(cluster, machine), etcd.LOCAL))


def snapshot(cluster: Cluster, machine: Machine, *, state: str = paths.STATE) -> str:
    """Runs on a master: writes a snapshot to stdout, not encrypted.

    `provision.commands.etcd.snapshot_file` describes the format.

    Args:
        state: a directory for its temporary files; only one program at a time may use it.
    """
    members = (machine,) if machine.has_etcd else cluster.etcd_members
    return _program(
        "snapshot",
        cluster=cluster.name,
        machine=machine.name,
        kubernetes=cluster.kubernetes,
        record=paths.RECORD,
        state=state,
        trust=" ".join(path.removeprefix("/") for path in PATHS),
        **_client(
            table.apiserver_etcd_client(cluster, machine),
            *(etcd.client_url(member) for member in members),
            ca=f"{paths.PKI}/etcd/ca.crt",
        ),
    )


def verify(cluster: Cluster, machine: Machine, manifest: Manifest) -> str:
    """Runs on a member's machine, the database on stdin: checks it with a temporary etcd."""
    return _program(
        "verify", state=paths.STATE, **_database(manifest), **_throwaway(cluster, machine)
    )


def defrag(cluster: Cluster, machine: Machine, action: Action) -> str:
    """One step of a defragmentation, through the machine's own member."""
    client = _client(table.etcd_healthcheck(cluster, machine), etcd.LOCAL)
    return _program("defrag", action=action, **client)


def stop(restoring: str, units: Iterable[str]) -> str:
    """Stops units for a restore, and writes the restore's marker.

    Args:
        restoring: the marker's content, one line.
    """
    return _program(
        "stop",
        state=paths.STATE,
        data=paths.ETCD_DATA,
        marker=paths.RESTORING,
        restoring=restoring,
        units=" ".join(units),
    )


def restore(
    cluster: Cluster,
    machine: Machine,
    members: Iterable[Machine],
    target: Target,
    manifest: Manifest,
) -> str:
    """Writes a member's restored data from the database on stdin; the member must not run.

    Args:
        members: all members of the restored cluster.
    """
    return _program(
        "restore",
        bin=paths.BIN,
        data=paths.ETCD_DATA,
        formed=paths.ETCD_FORMED,
        id=target.id,
        bump=str(target.bump),
        member=machine.name,
        initial=",".join(f"{m.name}={etcd.peer_url(m)}" for m in members),
        peer_url=etcd.peer_url(machine),
        # A new token: a member with the old data cannot join the restored cluster.
        token=f"{cluster.name}-{target.id}",
        **_database(manifest),
    )


def room(manifest: Manifest) -> str:
    """Prints the reason why a machine has no space for restored data; nothing if it has space."""
    return _program("room", data=paths.ETCD_DATA, **_database(manifest))


def start_member(cluster: Cluster, machine: Machine) -> str:
    """Starts a member, and waits until it answers a linearizable read."""
    ctl = etcd.etcdctl(cluster, machine)
    health = f"{ctl} get clusterctl && touch {paths.ETCD_FORMED} && rm -f {paths.ETCD_JOIN}"
    return _program("start", units=etcd.UNIT, health=health)


def start_control_plane() -> str:
    """Starts a master's apiserver and controllers, and waits until the apiserver is ready."""
    health = f"{KUBECTL} --server={OWN_API} --request-timeout=8s get --raw /readyz"
    return _program("start", units=" ".join(CONTROL_PLANE), health=health)


def brought(target: Target) -> str:
    """Prints `yes` if a member already has the data of this restore; it may have run since."""
    return _program("brought", data=paths.ETCD_DATA, id=target.id)


def release() -> str:
    """Removes the marker of a restore."""
    return _program("release", marker=paths.RESTORING)


def clean() -> str:
    """Removes the data from before a restore. Runs when no machine has a marker any more."""
    return _program("clean", data=paths.ETCD_DATA)


def revision() -> str:
    """Prints the data's revision of a member that does not run: JSON of etcdutl, or nothing."""
    return _program("revision", bin=paths.BIN, data=paths.ETCD_DATA, formed=paths.ETCD_FORMED)


def rescue(cluster: Cluster, machine: Machine) -> str:
    """Writes the data of a member without a quorum to stdout, like `snapshot`.

    The member must not run.
    """
    parameters = {
        "cluster": cluster.name,
        "machine": machine.name,
        "kubernetes": cluster.kubernetes,
        "record": paths.RECORD,
        "state": paths.STATE,
        "data": paths.ETCD_DATA,
        "formed": paths.ETCD_FORMED,
        "trust": "",
        **_throwaway(cluster, machine),
    }
    return _program("rescue", **parameters) + _text("snapshot")


def _database(manifest: Manifest) -> dict[str, str]:
    return {"sha256": manifest.sha256, "size": str(manifest.size)}


def _throwaway(cluster: Cluster, machine: Machine) -> dict[str, str]:
    server = table.etcd_server(cluster, machine)
    loopback = f"https://127.0.0.1:{ports.ETCD_SCRATCH}"
    return {
        "loopback": loopback,
        "loopback_peer": f"https://127.0.0.1:{ports.ETCD_SCRATCH_PEER}",
        "server_cert": server.cert_path,
        "server_key": server.key_path,
        **_client(table.etcd_healthcheck(cluster, machine), loopback),
    }


def _client(leaf: Leaf, *endpoints: str, ca: str = etcd.CA) -> dict[str, str]:
    return {
        "bin": paths.BIN,
        "timeout": COMMAND_TIMEOUT,
        "endpoints": " ".join(endpoints),
        "ca": ca,
        "cert": leaf.cert_path,
        "key": leaf.key_path,
    }


def _program(name: str, **parameters: str) -> str:
    lines = "".join(f"{key}={shlex.quote(value)}\n" for key, value in parameters.items())
    return f"{lines}{_text('common')}\n{_text(name)}"


@cache
def _text(name: str) -> str:
    return resources(__package__).joinpath(f"{name}.sh").read_text()
