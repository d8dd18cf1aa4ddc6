"""Names and tags by which clusterctl finds the things of a cluster.

Most things are found by tags. Load balancers, roles, groups and buckets have names that are unique
in the account (a bucket's name in all of AWS), with a limit on their length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from provision.desired.components.group import group_name
from provision.machines.ec2.keys import Key, Kind
from provision.model.cluster import Settings
from provision.model.errors import Finding

CLUSTER = "clusterctl:cluster"
OWNER = "clusterctl:owner"
KEY = "clusterctl:key"
HOST_KEY = "clusterctl:host-key"

MASTERS, WORKERS = "masters", "workers"
SIDES = (MASTERS, WORKERS)


@dataclass(frozen=True)
class Names:
    """Names of one cluster's things. `account`: 12 digits; empty if no name contains it."""

    cluster: str
    region: str
    account: str = ""
    given_bucket: str = ""

    @property
    def load_balancer(self) -> str:
        return f"{self.cluster}-api"

    @property
    def key_pair(self) -> str:
        return f"clusterctl-{self.cluster}"

    @property
    def group(self) -> str:
        return group_name(self.cluster)

    @property
    def bucket(self) -> str:
        return self.given_bucket or f"clusterctl-{self.cluster}-{self.account}-{self.region}"

    def security_group(self, side: str) -> str:
        return f"clusterctl-{self.cluster}-{side}"

    def role(self, side: str) -> str:
        # Roles have no region, and a cluster of this name may be in another region.
        return f"clusterctl-{self.cluster}-{self.region}-{side}"


def names_of(given: Settings, account: str = "") -> Names:
    return Names(given.name, given.ec2.region, account, given.ec2.bucket)


def too_long(names: Names) -> Iterator[Finding]:
    """Find names that AWS would refuse."""
    limits = (
        ("the load balancer's name", names.load_balancer, 32),
        ("the role's name", names.role(MASTERS), 64),
        ("the bucket's name", names.bucket, 63),
    )
    for what, name, most in limits:
        if len(name) > most:
            own = ", or give `bucket`" if name == names.bucket else ""
            yield Finding(
                "cluster.name",
                f"{what} would be {name!r}, {len(name)} characters; AWS takes {most}",
                f"a name that is {len(name) - most} shorter{own}",
            )


def cluster_tag(cluster: str) -> str:
    """Give the tag by which cloud controllers find a cluster's things.

    Value `owned`: the controller made the thing, and removes it. `shared`: clusterctl made it, and
    the controller may use it.
    """
    return f"kubernetes.io/cluster/{cluster}"


def shared(given: Settings) -> dict[str, str]:
    """Give additional tags for things that cloud controllers may use."""
    return {cluster_tag(given.name): "shared"}


def tags(given: Settings, key: Key, **further: str) -> list[dict[str, str]]:
    """Give the tags of one thing, in the form of most AWS services."""
    values = {
        **given.ec2.tags,
        "Name": f"{given.name} {key}",
        CLUSTER: given.name,
        OWNER: given.ec2.owner,
        KEY: str(key),
        **further,
    }
    return [{"Key": name, "Value": value} for name, value in values.items()]


_TYPES = {
    Kind.VPC: "vpc",
    Kind.GATEWAY: "internet-gateway",
    Kind.ROUTE_TABLE: "route-table",
    Kind.KEY_PAIR: "key-pair",
    Kind.SUBNET: "subnet",
    Kind.GROUP_SUBNET: "subnet",
    Kind.SECURITY_GROUP: "security-group",
    Kind.VOLUME: "volume",
    Kind.LAUNCH_TEMPLATE: "launch-template",
}


def tagged(given: Settings, key: Key, **further: str) -> dict[str, Any]:
    """Give the argument with which EC2's own calls tag a thing as they make it."""
    made = {"ResourceType": _TYPES[key.kind], "Tags": tags(given, key, **further)}
    return {"TagSpecifications": [made]}
