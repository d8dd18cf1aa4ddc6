"""What makes a cluster's machines, as data: one value for each kind, with its properties.

A kind is chosen with `cluster["machines"]`. Callers ask its value (`cluster.source.routes_pods`)
and never compare names. `provision.machines.sources` has the code of each kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError

from provision.model import form


@dataclass(frozen=True)
class Source:
    """A kind of machines.

    Attributes:
        name: as the inventory writes it, `lab`.
        machines: what an error calls them, `machines of the lab`.
        host_fields: the fields of `provision.inventory.draft.HostData` that the inventory may set
            for a machine; None: all.
        makes_machines: clusterctl creates and removes the machines.
        chooses_addresses: the source chooses the machines' addresses. Otherwise the inventory
            gives them.
        chooses_vip: the source can choose a virtual address: `"api": {"vip": "auto"}`.
        carries_vip: the machines' network lets a virtual address move between the masters.
        is_disposable: the machines are for tests. A command may change them without a
            confirmation, and the drill may harm them.
        routes_pods: the cloud's route table knows the pods' networks, so that machines need
            neither BIRD nor a common network.
        has_cloud_controller: a controller on the masters makes load balancers for Services.
        has_group: workers of a group join by themselves, and the inventory does not name them.
        is_here: the machines run on the operator's computer, and share its network link.
    """

    name: str
    machines: str
    host_fields: frozenset[str] | None = None
    makes_machines: bool = True
    chooses_addresses: bool = True
    chooses_vip: bool = False
    carries_vip: bool = True
    is_disposable: bool = False
    routes_pods: bool = False
    has_cloud_controller: bool = False
    has_group: bool = False
    is_here: bool = False

    def __str__(self) -> str:
        return self.name


_NODE_FIELDS = frozenset({"labels", "taints"})
_LOGIN_FIELDS = frozenset({"ssh_user", "ssh_key", "ssh_key_password", "ssh_config_file"})

STATIC = Source(
    "static", "machines that exist already", makes_machines=False, chooses_addresses=False
)
LAB = Source(
    "lab",
    "machines of the lab",
    host_fields=_NODE_FIELDS,
    chooses_vip=True,
    is_disposable=True,
    is_here=True,
)
VAGRANT = Source(
    "vagrant",
    "machines that Vagrant makes",
    host_fields=_NODE_FIELDS,
    chooses_vip=True,
    is_here=True,
)
EC2 = Source(
    "ec2",
    "machines on EC2",
    host_fields=_NODE_FIELDS | _LOGIN_FIELDS,
    carries_vip=False,
    routes_pods=True,
    has_cloud_controller=True,
    has_group=True,
)

SOURCES = {source.name: source for source in (STATIC, LAB, VAGRANT, EC2)}


def _named(value: object) -> Source:
    """Give the kind of that name."""
    if isinstance(value, Source):
        return value
    if isinstance(value, str) and value in SOURCES:
        return SOURCES[value]
    raise PydanticCustomError(form.CHOICE, "it must be one of {choices}", {"choices": [*SOURCES]})


SourceName = Annotated[Source, BeforeValidator(_named), PlainSerializer(str, return_type=str)]
