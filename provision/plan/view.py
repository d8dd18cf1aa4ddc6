"""The data that preflight's checks of one machine use. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from provision.model.cluster import Cluster, Machine
from provision.model.errors import Finding
from provision.model.facts import Facts
from provision.model.observed import HostReport, Observed


@dataclass(frozen=True)
class View:
    """A machine that answered, and the data that its checks need.

    Attributes:
        seen: the result of its probe; `facts` and `host` are parts of it.
        fingerprint: SHA-256 of the cluster's Kubernetes authority; None: it does not exist yet.
        off: names of the cluster's machines that do not answer.
    """

    cluster: Cluster
    machine: Machine
    seen: Observed
    facts: Facts
    host: HostReport
    fingerprint: str | None
    off: frozenset[str]

    @property
    def joined(self) -> bool:
        """Whether the machine already belongs to this cluster."""
        return self.seen.cluster == self.cluster.name

    def finding(self, what: str, hint: str, *, fatal: bool = True) -> Finding:
        return Finding(self.machine.name, what, hint, fatal=fatal)
