"""The vocabulary of the checks: what is looked at, and what it must be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from provision.model.cluster import Cluster, Machine


class Place(StrEnum):
    """On which machines a check is made."""

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
    """What a setting's value must be. `str` of it completes "must ..."."""

    def holds(self, value: str | None) -> bool:
        """Judge the value that is in force; None when there is none."""


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
    """A list with commas in between has this item."""

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
    """A list with commas in between, not empty, has none but these items."""

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
    """A duration that is not none at all."""

    def holds(self, value: str | None) -> bool:
        return value is not None and any(digit in value for digit in "123456789")

    def __str__(self) -> str:
        return "not be 0"


@dataclass(frozen=True)
class Setting:
    """A setting of a running process, by its command line, its environment or its file.

    Attributes:
        process: the unit's name without `.service`; `encryption` for the file that the apiserver
            encrypts by.
        flag: without dashes; etcd's may come as ETCD_* in its environment too.
        field: in the file that `--config` names, with dots; a flag counts before it.
        default: what holds where nothing is said, by the program's own documentation.
    """

    process: str
    flag: str
    rule: Rule
    field: str = ""
    default: str | None = None


@dataclass(frozen=True)
class Files:
    """Files of a machine, and the least that must hold for them.

    Attributes:
        paths: shell patterns; `DIR/**` is every file below, `DIR/**/` with the directories;
            `{etcd --data-dir}` is what the running process was given, `{kubelet clientCAFile}`
            what its file says.
        mode: no permission beyond these.
        owner: `user:group`.
        optional: nothing being there is fine.
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
        what: what must hold, a sentence.
        tests: all must hold.
        how: how a cluster of ours meets it.
        scored: whether the benchmark counts it.
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
        arguments: process -> its command line, without its name; a process that does not run
            is not there.
        environment: process -> variables of its own.
        config: process -> its file, field with dots -> value; lists with commas in between.
        files: each of the checks' patterns -> what matches it.
    """

    arguments: Mapping[str, tuple[str, ...]]
    environment: Mapping[str, Mapping[str, str]]
    config: Mapping[str, Mapping[str, str]]
    files: Mapping[str, tuple[FileSeen, ...]]
