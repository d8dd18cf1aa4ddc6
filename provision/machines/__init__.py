"""Machine sources: the lab, Vagrant, EC2, and machines that exist already."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol, runtime_checkable

from provision.inventory import Draft
from provision.local.progress import Progress
from provision.model.located import Located


@dataclass(frozen=True)
class MachineStatus:
    """A line of `clusterctl machines list`.

    Attributes:
        state: `running`, `stopped`, `absent`, `unknown`.
        spec: settings for another program that makes the machine, such as Vagrant.
    """

    name: str
    state: str
    address: str
    ssh: str
    spec: Mapping[str, object] = field(default_factory=dict)


class MachineSource(Protocol):
    """Makes, finds and removes machines. It is safe to repeat every call at any time."""

    def locate(self, draft: Draft) -> Mapping[str, Located]:
        """Give name -> where the machine is, or where it will be. Changes nothing."""

    def vip(self, draft: Draft) -> IPv4Address | None:
        """Give the address for `"vip": "auto"`; None: the source has no such address."""

    def missing(self, draft: Draft) -> tuple[str, ...]:
        """Give names of the machines that `create` would make or start."""

    def create(
        self, draft: Draft, progress: Progress, names: Collection[str] | None = None
    ) -> None:
        """Make the missing machines. Returns when SSH answers on all machines.

        Args:
            names: make only these machines; None: all machines of the inventory.

        Raises:
            MachinesError: names the machine, the cause and what to do.
        """

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> bool:
        """Remove these machines with their data, so that `create` makes new ones.

        Returns:
            False: the source does not remove machines; nothing was done.
        """

    def destroy(self, draft: Draft, progress: Progress) -> None:
        """Remove everything that `create` made for this inventory, and nothing else."""

    def status(self, draft: Draft) -> tuple[MachineStatus, ...]:
        """Give the state of the machines, in the inventory's order."""


@dataclass(frozen=True)
class Planned:
    """A thing that `create` would make. `monthly`: US dollars; None: nothing, or not known."""

    what: str
    detail: str = ""
    monthly: float | None = None


@runtime_checkable
class Cloud(MachineSource, Protocol):
    """A source that makes machines for money, and other things around them."""

    def planned(self, draft: Draft) -> tuple[Planned, ...]:
        """List what `create` would make or correct, in its order; empty: nothing.

        Raises:
            MachinesError: names every reason why `create` would fail.
        """

    def prices(self, draft: Draft) -> str:
        """Name the source of the prices in `planned`, and the costs that they leave out."""

    def api_name(self, draft: Draft) -> str | None:
        """Give the DNS name of the API's load balancer; None: it does not exist yet."""

    def bucket(self, draft: Draft) -> str:
        """Give the name of the cluster's bucket."""

    def group_arch(self, draft: Draft) -> str:
        """Architecture of machines that join by themselves, `amd64`; empty: there are none."""

    def offered(self, draft: Draft) -> str:
        """Give the SHA-256 of the program of such machines; empty: there is none yet."""

    def offer(
        self, draft: Draft, program: bytes, artifacts: Mapping[str, Path], progress: Progress
    ) -> None:
        """Offer this program to such machines from now on.

        Args:
            artifacts: pin -> compressed file; the program fetches them from the same place.

        Raises:
            MachinesError: a file cannot be stored.
        """

    def scale(self, draft: Draft, workers: int) -> int:
        """Set the number of such machines; returns the number before.

        Raises:
            RefusedError: the inventory has no such machines, or allows fewer.
            MachinesError: the cloud refuses.
        """
