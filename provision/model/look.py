"""One look at a cluster's machines, as a value. Pure; `Session.observe` makes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.errors import TrustError, UnreachableError
from provision.model.facts import Facts
from provision.model.observed import ApiView, Observed, api_view


@dataclass(frozen=True)
class Look(Mapping[str, Observed]):
    """Machine name -> what was observed there.

    Attributes:
        cluster: whose machines these are.
        machines: the machines that were looked at: all of the cluster's, or some.
    """

    cluster: Cluster
    machines: Mapping[str, Observed]

    def __getitem__(self, name: str) -> Observed:
        return self.machines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.machines)

    def __len__(self) -> int:
        return len(self.machines)

    def of(self, cluster: Cluster) -> Look:
        """Keep what was observed on the machines of this smaller cluster."""
        names = {m.name for m in cluster.machines}
        return Look(cluster, {name: view for name, view in self.items() if name in names})

    def facts(self, machine: Machine) -> Facts:
        """The facts of a machine that answered; preflight has refused all others."""
        facts = self[machine.name].facts
        assert facts is not None  # noqa: S101
        return facts

    def answering(self, machines: Iterable[Machine]) -> tuple[Machine, ...]:
        """Those of these machines that were looked at and answered."""
        return tuple(m for m in machines if m.name in self and self[m.name].reachable)

    def unreachable(self, machines: Iterable[Machine] | None = None) -> dict[str, str]:
        """Machine -> why it did not answer; of these machines, or of all that were looked at."""
        names = self if machines is None else [m.name for m in machines if m.name in self]
        return {name: self[name].error for name in names if not self[name].reachable}

    def leader(self, *, but: str = "") -> Machine:
        """A master through which to talk to the API; its own apiserver is ready, if any is.

        Args:
            but: not this machine.

        Raises:
            UnreachableError: no master answers.
        """
        masters = [m for m in self.cluster.masters if m.name != but]
        answering = self.answering(masters)
        for machine in answering:
            api = self[machine.name].api
            if api is not None and api.ready:
                return machine
        if answering:
            return answering[0]
        message = f"no master of {self.cluster.name} answers: {reasons(self.unreachable(masters))}"
        raise UnreachableError(
            message,
            hint=f"{clusterctl('check', self.cluster.inventory)} shows what is wrong with each",
        )

    def api(self, *, but: str = "") -> ApiView | None:
        """What the first apiserver that is ready says; None: no apiserver is ready.

        Args:
            but: not the apiserver of this machine.
        """
        return api_view({name: view for name, view in self.items() if name != but})

    def fingerprint(self) -> str:
        """The fingerprint of the cluster's authority, by the machines' records; empty: no record.

        Raises:
            TrustError: the machines disagree.
        """
        found = {view.machine: view.fingerprint for view in self.values() if view.fingerprint}
        if len(set(found.values())) > 1:
            shown = ", ".join(f"{name} ({fingerprint[:12]})" for name, fingerprint in found.items())
            message = f"the machines have different authorities: {shown}"
            raise TrustError(message, hint="they belong to different clusters: check the addresses")
        return next(iter(found.values()), "")

    @property
    def installed(self) -> bool:
        """Whether any machine belongs to a cluster, by its record."""
        return any(view.fingerprint for view in self.values())


def reasons(unreachable: Mapping[str, str]) -> str:
    """`Look.unreachable` as text for a message: `m1: no route to host; m2: ...`."""
    return "; ".join(f"{name}: {why}" for name, why in unreachable.items())
