"""Keys of a cluster's things in the account. Each thing has a kind and its own key.

Operators read the text of a key. The tags `clusterctl:key` and `Name` have the same text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """A kind of thing, or of setting; its value is the text, with `{}` for the name."""

    VPC = "vpc"
    GATEWAY = "internet gateway"
    GATEWAY_AT_VPC = "internet gateway at vpc"
    ROUTE_TABLE = "route table"
    INTERNET_ROUTE = "route to the internet"
    # The name in these keys is a zone.
    SUBNET = "subnet {}"
    SUBNET_AT_TABLE = "subnet {} at route table"
    GROUP_SUBNET = "subnet {} group"
    GROUP_SUBNET_AT_TABLE = "subnet {} group at route table"
    # The name in these keys is `masters` or `workers`.
    SECURITY_GROUP = "security group {}"
    PORTS_OPENED = "ports opened in security group {}"
    PORTS_CLOSED = "ports closed in security group {}"
    ROLE = "role {}"
    ROLE_POLICY = "policy of role {}"
    SESSION_MANAGER = "Session Manager for role {}"
    PROFILE = "instance profile {}"
    ROLE_IN_PROFILE = "role {} in its profile"
    KEY_PAIR = "key pair"
    BUCKET = "bucket"
    BUCKET_SETTING = "bucket's {}"
    LOAD_BALANCER = "load balancer"
    TARGET_GROUP = "target group"
    LISTENER = "listener"
    TARGETS = "targets"
    # The name in these keys is a machine.
    TARGET = "target {}"
    INSTANCE = "instance {}"
    START = "start of {}"
    SOURCE_CHECK = "source check of {}"
    VOLUME = "volume {}"
    ATTACHMENT = "volume {} at its machine"
    ROOT_VOLUME = "root of {}"
    LAUNCH_TEMPLATE = "launch template"
    TEMPLATE_VERSION = "version of launch template"
    GROUP = "group"
    GROUP_SIZE = "size of group"
    GROUPED = "worker of the group"
    # A thing whose tag this version does not know.
    OTHER = "{}"


@dataclass(frozen=True, repr=False)
class Key:
    """Key of one thing. `name`: the machine, zone or side; empty: the kind has only one thing."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        return self.kind.value.format(self.name)

    def __repr__(self) -> str:
        # The digest of a launch template contains this text, so every version must keep it.
        return repr(str(self))


VPC = Key(Kind.VPC)
GATEWAY = Key(Kind.GATEWAY)
GATEWAY_AT_VPC = Key(Kind.GATEWAY_AT_VPC)
ROUTE_TABLE = Key(Kind.ROUTE_TABLE)
INTERNET_ROUTE = Key(Kind.INTERNET_ROUTE)
KEY_PAIR = Key(Kind.KEY_PAIR)
BUCKET = Key(Kind.BUCKET)
LOAD_BALANCER = Key(Kind.LOAD_BALANCER)
TARGET_GROUP = Key(Kind.TARGET_GROUP)
LISTENER = Key(Kind.LISTENER)
TARGETS = Key(Kind.TARGETS)
LAUNCH_TEMPLATE = Key(Kind.LAUNCH_TEMPLATE)
TEMPLATE_VERSION = Key(Kind.TEMPLATE_VERSION)
GROUP = Key(Kind.GROUP)
GROUP_SIZE = Key(Kind.GROUP_SIZE)
GROUPED = Key(Kind.GROUPED)


def read(text: str) -> Key:
    """Read a key from the text of a tag. Names have no spaces."""
    for kind in Kind:
        before, blank, after = kind.value.partition("{}")
        name = r"(\S+)" if blank else "()"
        found = re.fullmatch(f"{re.escape(before)}{name}{re.escape(after)}", text)
        if found and kind is not Kind.OTHER:
            return Key(kind, found[1])
    return Key(Kind.OTHER, text)


AT_TABLE = {
    Kind.SUBNET: Kind.SUBNET_AT_TABLE,
    Kind.GROUP_SUBNET: Kind.GROUP_SUBNET_AT_TABLE,
}


def at_table(subnet: Key) -> Key:
    """Name the association of a subnet with the route table."""
    return Key(AT_TABLE[subnet.kind], subnet.name)
