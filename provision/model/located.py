"""Where a machine is."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from provision.model.cluster import Ssh


@dataclass(frozen=True)
class Located:
    """A machine's address on the machines' own network, and how SSH reaches it."""

    address: IPv4Address
    ssh: Ssh
