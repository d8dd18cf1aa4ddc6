"""A lab's cluster as the drill sees it: what to harm, how, and whether it has got over it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from provision import inventory
from provision.desired.components.etcd import etcdctl
from provision.drill import dns
from provision.drill.client import Client
from provision.drill.runs import Ended, clusterctl
from provision.drill.writer import NAMESPACE
from provision.inventory import Draft
from provision.machines.lab import Lab
from provision.machines.locate import locate
from provision.model.cluster import Cluster, Machine
from provision.model.errors import MachinesError, RefusedError, UnhealthyError
from provision.model.source import SOURCES

CHOSEN = 60.0  # seconds until there is a leader, and a master with the virtual address
MEMBER_KEYS = f"/registry/configmaps/{NAMESPACE}/"


@dataclass
class Site:
    """A running cluster in the lab.

    Attributes:
        client: of the endpoint that people use: the virtual address, where there is one.
        kubeconfig: that the client was made of.
    """

    draft: Draft
    lab: Lab
    cluster: Cluster
    known_hosts: Path
    kubeconfig: Path
    client: Client

    @property
    def inventory(self) -> Path:
        return self.draft.inventory

    def locate(self) -> None:
        """Look where the machines are: they may have moved."""
        self.cluster, _, self.known_hosts = locate(self.lab, self.draft)

    def run(self, machine: str, script: str, *, stdin: bytes = b"") -> str:
        """Run a script as root, whatever has become of the machine's network."""
        return self.lab.run(self.draft, machine, script, stdin=stdin)

    def fails(self, machine: str, script: str) -> bool:
        """Whether the script exits with another status than 0; or the machine is off."""
        try:
            self.run(machine, script)
        except MachinesError:
            return True
        return False

    def clusterctl(self, command: str, *arguments: str) -> Ended:
        return clusterctl(command, self.inventory, *arguments)

    def etcdctl(self, member: Machine, arguments: str) -> str:
        """Ask a member on its own machine."""
        return self.run(member.name, f"{etcdctl(self.cluster, member)} {arguments} 2>/dev/null")

    def leader(self) -> str:
        """The machine of etcd's leader; waits for one to be elected.

        Raises:
            UnhealthyError: none is.
        """
        return _first("etcd has no leader", self.cluster.etcd_members, self._leads)

    def _leads(self, member: Machine) -> bool:
        try:
            (status,) = json.loads(self.etcdctl(member, "endpoint status -w json"))
        except (MachinesError, ValueError):
            return False
        return bool(status["Status"]["leader"] == status["Status"]["header"]["member_id"])

    def entrance(self) -> str:
        """The master that clients outside talk to: the one with the virtual address.

        Raises:
            UnhealthyError: none has it, and none takes it.
        """
        vip = self.cluster.api.vip
        if not vip:
            return self.cluster.masters[0].name
        ask = f"ip -o addr show to {vip} | grep -q ."
        return _first(
            f"no master has the address {vip}",
            self.cluster.masters,
            lambda master: not self.fails(master.name, ask),
        )

    def bystander(self, victim: str) -> Machine:
        """A node that the fault does not touch: a worker, if there is another."""
        nodes = (*self.cluster.workers, *self.cluster.masters)
        return next((m for m in nodes if m.name != victim), nodes[0])

    def stored(self) -> Mapping[str, AbstractSet[str]]:
        """What the drill has written: member -> names, by each member's own word."""
        found = {}
        for member in self.cluster.etcd_members:
            keys = self.etcdctl(member, f"get {MEMBER_KEYS} --prefix --keys-only --consistency=s")
            found[member.name] = {key.removeprefix(MEMBER_KEYS) for key in keys.split()}
        return found

    def make_namespace(self) -> None:
        """Where the writes go; what an earlier drill has left is removed."""
        self.remove_namespace()
        body = {"metadata": {"name": NAMESPACE}}
        await_("the namespace of the drill", lambda: self._created(body), 60)

    def remove_namespace(self) -> None:
        try:
            self.client.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
        except http.client.HTTPException as error:
            if not str(error).startswith("404"):
                raise

    def _created(self, body: object) -> bool:
        try:
            self.client.request("POST", "/api/v1/namespaces", body)
        except http.client.HTTPException as error:  # the old one is on its way out
            if not str(error).startswith("409"):
                raise
            return False
        return True

    def ready(self, since: datetime) -> bool:
        """Whether all Nodes are Ready, and each has said so after `since`.

        A Node whose machine has died is Ready for 40 s more, until its lease is seen to be old.
        """
        try:
            nodes = self.client.request("GET", "/api/v1/nodes")["items"]
            leases = self.client.request(
                "GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
            )["items"]
        except (OSError, http.client.HTTPException):
            return False
        renewed = {i["metadata"]["name"]: i["spec"].get("renewTime", "") for i in leases}
        fresh = {name for name, at in renewed.items() if at and datetime.fromisoformat(at) > since}
        ready = {
            node["metadata"]["name"]
            for node in nodes
            for condition in node["status"].get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
        }
        return {m.name for m in self.cluster.nodes} <= ready & fresh

    def resolves(self) -> bool:
        """Whether the cluster's DNS answers, asked from every node."""
        networks = self.cluster.networks
        name = f"kubernetes.default.svc.{networks.domain}"
        script = dns.script(name, str(networks.dns_service))
        return not any(self.fails(node.name, script) for node in self.cluster.nodes)

    def healthy(self) -> bool:
        return self.clusterctl("status").code == 0


def _first(
    otherwise: str, machines: Sequence[Machine], condition: Callable[[Machine], bool]
) -> str:
    deadline = time.monotonic() + CHOSEN
    while time.monotonic() < deadline:
        for machine in machines:
            if condition(machine):
                return machine.name
        time.sleep(0.5)
    raise UnhealthyError(otherwise)


def open_site(path: Path, kubeconfig: Path) -> Site:
    """Look at a cluster that runs in the lab.

    Args:
        kubeconfig: is written.

    Raises:
        RefusedError: its machines are not the lab's.
        UnhealthyError: it gives no kubeconfig.
    """
    draft = inventory.read(path)
    if not draft.source.is_disposable:
        message = f"{path}: the drill harms its machines, and these are {draft.source.machines}"
        able = " or ".join(f'"{s}"' for s in SOURCES.values() if s.is_disposable)
        raise RefusedError(message, hint=f'only where cluster["machines"] is {able}')
    lab = Lab()
    cluster, _, known_hosts = locate(lab, draft)
    clusterctl("kubeconfig", path, "-o", str(kubeconfig)).succeeded()
    host, _, port = cluster.endpoint.removeprefix("https://").rpartition(":")
    client = Client(kubeconfig, host, int(port))
    return Site(draft, lab, cluster, known_hosts, kubeconfig, client)


def await_(what: str, condition: Callable[[], bool], timeout: float) -> float:
    """Wait for a condition; the seconds that it took.

    Raises:
        UnhealthyError: it did not come in time.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout:
            message = f"not within {timeout:.0f} s: {what}"
            raise UnhealthyError(message)
        time.sleep(0.2)
    return time.monotonic() - began


def now() -> datetime:
    """The time by the clock that the lab's machines share with this computer."""
    return datetime.now(UTC)
