"""Where machines come from: the lab, Vagrant, EC2, or just an address."""

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
        spec: what the program that makes it is to know of it, where that is not us.
    """

    name: str
    state: str
    address: str
    ssh: str
    spec: Mapping[str, object] = field(default_factory=dict)


class MachineSource(Protocol):
    """What makes, finds and removes machines. Every method may be called again at any time."""

    def locate(self, draft: Draft) -> Mapping[str, Located]:
        """Name -> where it is, or where it will be once created. Touches nothing."""

    def vip(self, draft: Draft) -> IPv4Address | None:
        """The address for `"vip": "auto"`; None where there is no such thing."""

    def missing(self, draft: Draft) -> tuple[str, ...]:
        """Names that `create` would have to make or start."""

    def create(
        self, draft: Draft, progress: Progress, names: Collection[str] | None = None
    ) -> None:
        """Make what is missing; returns when SSH answers on all of them.

        Args:
            names: make these only; None: all of the inventory.

        Raises:
            MachinesError: with the machine, the cause and what to do.
        """

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> bool:
        """Remove these machines, with all that is on them, so that `create` makes them anew.

        Returns:
            False where machines are not ours to remove; nothing was done then.
        """

    def destroy(self, draft: Draft, progress: Progress) -> None:
        """Remove all that `create` made for this inventory, and nothing else."""

    def status(self, draft: Draft) -> tuple[MachineStatus, ...]:
        """The machines of this inventory, in its order."""


@dataclass(frozen=True)
class Planned:
    """A thing that `create` would make. `monthly`: US dollars; None: nothing, or not known."""

    what: str
    detail: str = ""
    monthly: float | None = None


@runtime_checkable
class Cloud(MachineSource, Protocol):
    """A source of machines that cost money, and of more than machines."""

    def planned(self, draft: Draft) -> tuple[Planned, ...]:
        """What `create` would make or correct, in its order; empty: all is as it should be.

        Raises:
            MachinesError: it cannot be, with everything that stands against it.
        """

    def prices(self, draft: Draft) -> str:
        """Where the costs in `planned` are from, and what they leave out."""

    def api_name(self, draft: Draft) -> str | None:
        """DNS name of the load balancer that it made for the API."""

    def bucket(self, draft: Draft) -> str:
        """Name of the bucket that it made for the cluster."""

    def group_arch(self, draft: Draft) -> str:
        """Architecture of machines that join by themselves, `amd64`; empty: there are none."""

    def offered(self, draft: Draft) -> str:
        """SHA-256 of the program that such machines are given; empty: none yet."""

    def offer(
        self, draft: Draft, program: bytes, artifacts: Mapping[str, Path], progress: Progress
    ) -> None:
        """Give such machines this program from now on.

        Args:
            artifacts: pin -> compressed file, of those that it fetches from there.

        Raises:
            MachinesError: it cannot be stored.
        """

    def scale(self, draft: Draft, workers: int) -> int:
        """Have so many of such machines; returns how many there were to be before.

        Raises:
            RefusedError: the inventory has no such machines, or there cannot be so many.
            MachinesError: the cloud refuses.
        """
