"""The things of a cluster in the account, as data: those that should exist, and those that do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from provision.machines.ec2.keys import Key


@dataclass(frozen=True)
class Ref:
    """In a request, a placeholder for another thing's id, which is known once that thing exists."""

    key: Key


@dataclass(frozen=True)
class Text:
    """A text in a request that contains ids; they are known once their things exist."""

    parts: tuple[str | Ref, ...]


@dataclass(frozen=True)
class Step:
    """One API call that makes, or corrects, one thing.

    Attributes:
        key: the thing or setting that it makes; unique in the cluster.
        service: boto3's name: `ec2`, `elbv2`, `iam`, `autoscaling`, `s3`.
        action: boto3's method.
        request: its arguments, with `Ref`s.
        gives: place of the new thing's id in the answer, `Vpc.VpcId`; empty: there is no id.
        after: keys of things that must exist first, besides its `Ref`s.
        once: a boto3 waiter that must end before the call, and the key, or the id, of its thing.
        sets: the wanted setting, in canonical form: the step is needed while the setting differs.
            Empty: the step is needed while the thing does not exist.
        detail: for operators.
    """

    key: Key
    service: str
    action: str
    request: Mapping[str, Any]
    gives: str = ""
    after: tuple[Key, ...] = ()
    once: tuple[str, Key | str] = ("", "")
    sets: str = ""
    detail: str = ""

    @property
    def needs(self) -> frozenset[Key]:
        return frozenset((*self.after, *refs(self.request)))


@dataclass(frozen=True)
class Instance:
    """One EC2 instance of the cluster. `state`: in EC2's words."""

    id: str
    state: str
    zone: str
    private: str
    public: str = ""
    host_key: str = ""


@dataclass(frozen=True)
class HostKey:
    """A machine's SSH host key, as OpenSSH writes it."""

    private: str
    public: str


@dataclass(frozen=True)
class World:
    """Facts from the account that the inventory does not have.

    Attributes:
        account: its number.
        images: `masters`, `workers` -> AMI's id.
        roots: `masters`, `workers` -> name of the AMI's root device.
        public_key: of the operator; empty if the inventory names a key pair.
        gateway: id of the internet gateway of a VPC that exists, if it has one.
    """

    account: str
    images: Mapping[str, str]
    roots: Mapping[str, str]
    public_key: str = ""
    gateway: str = ""


@dataclass(frozen=True)
class Rule:
    """Traffic that a security group allows. Protocol `-1` with ports (0, 65535): all traffic."""

    protocol: str
    ports: tuple[int, int]
    network: str = ""
    group: Key | str = ""  # an id, or the key of a group that does not exist yet


@dataclass(frozen=True)
class Seen:
    """The cluster's things that exist.

    Attributes:
        ids: key -> id of every thing.
        owners: key -> (cluster, owner) of its tags; empty strings without tags.
        instances: machine's name -> its instance; without those that shut down.
        leaving: machine's name -> its instance that shuts down. Its volume and address are in use
            until it has ended.
        volumes: machine's name -> zone of its volume for etcd.
        left: machine's name -> zone and address that it had when it was removed.
        rules: key of a security group -> the traffic that it allows.
        settings: key -> the present setting, in canonical form.
        load_balancer: DNS name of the API's load balancer.
    """

    ids: Mapping[Key, str] = field(default_factory=dict)
    owners: Mapping[Key, tuple[str, str]] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    leaving: Mapping[str, Instance] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    rules: Mapping[Key, frozenset[Rule]] = field(default_factory=dict)
    settings: Mapping[Key, str] = field(default_factory=dict)
    load_balancer: str = ""


def refs(value: object) -> Iterator[Key]:
    """Give the keys of all `Ref`s in a request."""
    if isinstance(value, Ref):
        yield value.key
    elif isinstance(value, Text):
        yield from refs(value.parts)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from refs(inner)


def resolved(value: Any, ids: Mapping[Key, str]) -> Any:  # noqa: ANN401  a request, of any shape
    """Replace `Ref`s by ids.

    Raises:
        KeyError: an id is not known yet.
    """
    if isinstance(value, Ref):
        return ids[value.key]
    if isinstance(value, Text):
        return "".join(resolved(value.parts, ids))
    if isinstance(value, Mapping):
        return {key: resolved(inner, ids) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(inner, ids) for inner in value]
    return value


def canonical(value: object) -> str:
    """Write a value so that equal values give equal texts; a JSON text is parsed first."""
    return json.dumps(json.loads(value) if isinstance(value, str) else value, sort_keys=True)


def at(answer: Any, path: str) -> str:  # noqa: ANN401  an answer, of any shape
    """Read `Instances.0.InstanceId` from an answer."""
    for word in path.split("."):
        answer = answer[int(word)] if word.isdecimal() else answer[word]
    return str(answer)
