"""The values that checks are made of: what is looked at, and the rules for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from provision.model.cluster import Cluster, Machine


class Place(StrEnum):
    """The machines that a check is about."""

    MASTERS = "masters"
    MEMBERS = "etcd members"
    NODES = "nodes"
    ASKING = "nodes whose kubelets ask for their certificates"
    PROXIES = "nodes with kube-proxy"

    def includes(self, cluster: Cluster, machine: Machine) -> bool:
        match self:
            case Place.MASTERS:
                return machine.is_master
            case Place.MEMBERS:
                return machine.has_etcd
            case Place.NODES:
                return machine.is_node
            case Place.ASKING:
                return machine.is_node and not cluster.certificates.external
            case Place.PROXIES:
                return machine.is_node and cluster.networks.proxy_mode != "none"


class Rule(Protocol):
    """What a setting's value must be. `str(rule)` completes "must ..."."""

    def holds(self, value: str | None) -> bool:
        """Whether the value in force is right; None: there is no value."""


@dataclass(frozen=True)
class Is:
    wanted: str

    def holds(self, value: str | None) -> bool:
        return value == self.wanted

    def __str__(self) -> str:
        return f"be {self.wanted}"


@dataclass(frozen=True)
class IsSet:
    def holds(self, value: str | None) -> bool:
        return bool(value)

    def __str__(self) -> str:
        return "be set"


@dataclass(frozen=True)
class IsNotSet:
    def holds(self, value: str | None) -> bool:
        return value is None

    def __str__(self) -> str:
        return "not be set"


@dataclass(frozen=True)
class Has:
    """A comma-separated list has this item."""

    item: str

    def holds(self, value: str | None) -> bool:
        return self.item in (value or "").split(",")

    def __str__(self) -> str:
        return f"contain {self.item}"


@dataclass(frozen=True)
class HasNot:
    item: str

    def holds(self, value: str | None) -> bool:
        return self.item not in (value or "").split(",")

    def __str__(self) -> str:
        return f"not contain {self.item}"


@dataclass(frozen=True)
class Only:
    """A comma-separated list is not empty and has no other items than these."""

    items: tuple[str, ...]

    def holds(self, value: str | None) -> bool:
        return bool(value) and set((value or "").split(",")) <= set(self.items)

    def __str__(self) -> str:
        return f"contain nothing but {', '.join(self.items)}"


@dataclass(frozen=True)
class AtLeast:
    number: int

    def holds(self, value: str | None) -> bool:
        try:
            return int(value or "") >= self.number
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"be {self.number} or more"


@dataclass(frozen=True)
class StartsWith:
    wanted: str

    def holds(self, value: str | None) -> bool:
        return (value or "").startswith(self.wanted)

    def __str__(self) -> str:
        return f"begin with {self.wanted}"


@dataclass(frozen=True)
class NotZero:
    """A duration that is not 0."""

    def holds(self, value: str | None) -> bool:
        return value is not None and any(digit in value for digit in "123456789")

    def __str__(self) -> str:
        return "not be 0"


@dataclass(frozen=True)
class Setting:
    """A setting of a running process: from its command line, its environment or its file.

    Attributes:
        process: the unit's name without `.service`; `encryption` for the apiserver's encryption file.
        flag: without dashes; etcd's may come as ETCD_* in its environment too.
        field: in the file that `--config` names, with dots; a flag counts before it.
        default: the value if it is not set, by the program's documentation.
    """

    process: str
    flag: str
    rule: Rule
    field: str = ""
    default: str | None = None


@dataclass(frozen=True)
class Files:
    """Files of a machine, and the permissions and owner that they must have.

    Attributes:
        paths: shell patterns; `DIR/**` is every file below, `DIR/**/` with the directories;
            `{etcd --data-dir}` is what the running process was given, `{kubelet clientCAFile}`
            what its file says.
        mode: the permissions that are allowed at most.
        owner: `user:group`.
        optional: the files may be missing.
    """

    paths: tuple[str, ...]
    mode: int | None = None
    owner: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        id: the benchmark's number.
        place: where.
        what: what must hold, as a sentence.
        tests: all of them must hold.
        how: how clusterctl makes a cluster meet it.
        scored: whether the benchmark scores it.
    """

    id: str
    place: Place
    what: str
    tests: tuple[Setting | Files, ...]
    how: str
    scored: bool = True


@dataclass(frozen=True)
class FileSeen:
    path: str
    mode: int
    owner: str


@dataclass(frozen=True)
class Seen:
    """What a machine answered.

    Attributes:
        arguments: process -> its command line, without its name; only processes that run.
        environment: process -> its own variables.
        config: process -> its file: field, with dots -> value; lists as comma-separated text.
        files: pattern of a check -> the files that match it.
    """

    arguments: Mapping[str, tuple[str, ...]]
    environment: Mapping[str, Mapping[str, str]]
    config: Mapping[str, Mapping[str, str]]
    files: Mapping[str, tuple[FileSeen, ...]]
