"""A lab's cluster during the drill: find machines to harm, and test whether it has recovered."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from provision import inventory
from provision.desired.components.etcd import etcdctl
from provision.drill import dns
from provision.drill.client import Client, StatusError
from provision.drill.runs import Ended, run_clusterctl
from provision.drill.writer import NAMESPACE
from provision.inventory import Draft
from provision.machines.lab import Lab
from provision.machines.locate import locate
from provision.model.cluster import Cluster, Machine
from provision.model.errors import MachinesError, RefusedError, UnhealthyError
from provision.model.source import SOURCES

CHOSEN = 60.0  # seconds until etcd has a leader, and a master has the virtual address
MEMBER_KEYS = f"/registry/configmaps/{NAMESPACE}/"


@dataclass
class Site:
    """A running cluster in the lab.

    Attributes:
        client: connects to the API's address: the virtual address, if the cluster has one.
        kubeconfig: the file that `client` was made from.
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
        """Read the machines' addresses again: they may have changed."""
        self.cluster, _, self.known_hosts = locate(self.lab, self.draft)

    def run(self, machine: str, script: str, *, stdin: bytes = b"") -> str:
        """Run a script as root; return its output. This needs no network on the machine."""
        return self.lab.run(self.draft, machine, script, stdin=stdin)

    def fails(self, machine: str, script: str) -> bool:
        """Whether the script exits with another status than 0, or the machine is off."""
        try:
            self.run(machine, script)
        except MachinesError:
            return True
        return False

    def clusterctl(self, command: str, *arguments: str) -> Ended:
        return run_clusterctl(command, self.inventory, *arguments)

    def etcdctl(self, member: Machine, arguments: str) -> str:
        """Run etcdctl on the member's machine, against this member; return its output."""
        return self.run(member.name, f"{etcdctl(self.cluster, member)} {arguments} 2>/dev/null")

    def leader(self) -> str:
        """The name of the machine with etcd's leader. Waits until etcd has elected one.

        Raises:
            UnhealthyError: etcd has no leader after `CHOSEN` seconds.
        """
        return _first("etcd has no leader", self.cluster.etcd_members, self._leads)

    def _leads(self, member: Machine) -> bool:
        try:
            (status,) = json.loads(self.etcdctl(member, "endpoint status -w json"))
        except (MachinesError, ValueError):
            return False
        return bool(status["Status"]["leader"] == status["Status"]["header"]["member_id"])

    def entrance(self) -> str:
        """The name of the master that outside clients reach: the one with the virtual address.

        Without a virtual address: the first master.

        Raises:
            UnhealthyError: no master has the address after `CHOSEN` seconds.
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
        """A node other than the victim; a worker if possible."""
        nodes = (*self.cluster.workers, *self.cluster.masters)
        return next((m for m in nodes if m.name != victim), nodes[0])

    def stored(self) -> Mapping[str, AbstractSet[str]]:
        """The objects that the drill has written: member -> names, read from each member itself."""
        found = {}
        for member in self.cluster.etcd_members:
            keys = self.etcdctl(member, f"get {MEMBER_KEYS} --prefix --keys-only --consistency=s")
            found[member.name] = {key.removeprefix(MEMBER_KEYS) for key in keys.split()}
        return found

    def make_namespace(self) -> None:
        """Make the namespace for the writes. Remove the namespace of an earlier drill first."""
        self.remove_namespace()
        body = {"metadata": {"name": NAMESPACE}}
        await_("the namespace of the drill", lambda: self._created(body), 60)

    def remove_namespace(self) -> None:
        try:
            self.client.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
        except StatusError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def _created(self, body: object) -> bool:
        try:
            self.client.request("POST", "/api/v1/namespaces", body)
        except StatusError as error:
            if error.status != HTTPStatus.CONFLICT:  # the old one is still being deleted
                raise
            return False
        return True

    def ready(self, since: datetime) -> bool:
        """Whether all Nodes are Ready, and each has renewed its lease after `since`.

        A Node whose machine has died stays Ready for another 40 s, until its lease is too old.
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
        """Whether the cluster's DNS answers queries from every node."""
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
    """Connect to a cluster that runs in the lab.

    Args:
        path: the inventory.
        kubeconfig: the file to write the cluster's kubeconfig to.

    Raises:
        RefusedError: the inventory's machines are not disposable.
        UnhealthyError: `clusterctl kubeconfig` failed.
    """
    draft = inventory.read(path)
    if not draft.source.is_disposable:
        message = f"{path}: the drill harms its machines, and these are {draft.source.machines}"
        able = " or ".join(f'"{s}"' for s in SOURCES.values() if s.is_disposable)
        raise RefusedError(message, hint=f'only where cluster["machines"] is {able}')
    lab = Lab()
    cluster, _, known_hosts = locate(lab, draft)
    run_clusterctl("kubeconfig", path, "-o", str(kubeconfig)).succeeded()
    host, _, port = cluster.endpoint.removeprefix("https://").rpartition(":")
    client = Client(kubeconfig, host, int(port))
    return Site(draft, lab, cluster, known_hosts, kubeconfig, client)


def await_(what: str, condition: Callable[[], bool], timeout: float) -> float:
    """Wait until a condition holds; return the seconds that it took.

    Args:
        what: names the condition in the error.
        timeout: seconds.

    Raises:
        UnhealthyError: the condition did not hold in time.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout:
            message = f"not within {timeout:.0f} s: {what}"
            raise UnhealthyError(message)
        time.sleep(0.2)
    return time.monotonic() - began


def now() -> datetime:
    """The time. The lab's machines use the clock of this computer."""
    return datetime.now(UTC)
