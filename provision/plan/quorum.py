"""etcd's members: which of them may form, join, leave or restart without loss of quorum. Pure.

A quorum is more than half of the voters (https://etcd.io/docs/v3.6/faq). Learners have no vote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from provision.desired.components.etcd import peer_url
from provision.model.cluster import Cluster
from provision.model.observed import EtcdMember, Observed


@dataclass(frozen=True)
class Membership:
    """The members, as etcd lists them.

    Attributes:
        voters, learners: machine's name -> member.
        healthy: names of voters that answered a linearizable read.
    """

    voters: Mapping[str, EtcdMember]
    learners: Mapping[str, EtcdMember]
    healthy: frozenset[str]

    def get(self, name: str) -> EtcdMember | None:
        return self.voters.get(name) or self.learners.get(name)

    @property
    def ailing(self) -> tuple[str, ...]:
        """Give voters that did not answer a linearizable read."""
        return tuple(name for name in self.voters if name not in self.healthy)


def quorum(voters: int) -> int:
    return voters // 2 + 1


def membership(cluster: Cluster, observed: Mapping[str, Observed]) -> Membership | None:
    """Give the members, as healthy members list them; None: no member has a quorum."""
    views = {name: view.etcd for name, view in observed.items() if view.etcd and view.etcd.healthy}
    listed = next((view.members for view in views.values()), None)
    if listed is None:
        return None
    # A member that was added and has not started yet has no name.
    by_url = {peer_url(machine): machine.name for machine in cluster.etcd_members}

    def name(member: EtcdMember) -> str:
        return member.name or next(
            (by_url[url] for url in member.peer_urls if url in by_url), member.id
        )

    ids = {view.id for view in views.values()}
    return Membership(
        voters={name(m): m for m in listed if not m.learner},
        learners={name(m): m for m in listed if m.learner},
        healthy=frozenset(name(m) for m in listed if not m.learner and m.id in ids),
    )


class Standing(StrEnum):
    """The relation of a machine of the inventory to the cluster's etcd."""

    MEMBER = "member"
    FOUNDER = "starts for the first time, as one of the first members"
    JOINER = "joins as a learner, and is promoted"
    WIPED = "is a member of its etcd, and its data is gone"
    STRANGER = "has data of a member that its etcd does not know"
    UNKNOWN = "is empty, and etcd has no quorum that knows whether it is a member"


def standing(view: Observed, known: Membership | None, *, formed: bool) -> Standing:
    """Give the standing of a machine that answers in the cluster's etcd.

    Args:
        view: the machine, which should be a member.
        known: the members; None: there is no quorum.
        formed: whether any machine was ever part of a healthy cluster.
    """
    # A run that was killed between writing the files and starting etcd leaves a marker and no data.
    interrupted = view.etcd_joining and not view.etcd_formed
    if not formed:
        result = Standing.FOUNDER
    elif known is None:
        result = Standing.MEMBER if view.etcd_data else Standing.UNKNOWN
        result = Standing.FOUNDER if interrupted else result
    elif view.machine in known.learners:
        result = Standing.JOINER
    elif view.machine not in known.voters:
        result = Standing.STRANGER if view.etcd_data else Standing.JOINER
    elif view.etcd_data:
        result = Standing.MEMBER if view.etcd_formed else Standing.JOINER
    else:
        result = Standing.FOUNDER if interrupted else Standing.WIPED
    return result


def against_removal(known: Membership, name: str) -> str:
    """Give the reason why this member must not be removed now; empty: it may be removed."""
    if name not in known.voters:
        return ""
    others = known.healthy - {name}
    left = len(known.voters) - 1
    if not left:
        return "it is the only member: removing it would delete all data of the cluster"
    if len(known.healthy) < quorum(len(known.voters)):
        return _short(known, "etcd has no quorum to agree to the removal")
    if len(others) < quorum(left):
        return _short(known, f"{quorum(left)} of the {left} remaining members must be healthy")
    return ""


def against_restart(known: Membership, name: str) -> str:
    """Give the reason why this member must not be restarted now; empty: it may be restarted.

    With one or two members a restart always interrupts etcd; no data is lost.
    """
    voters = len(known.voters)
    if name not in known.healthy or voters < 3:
        return ""
    if len(known.healthy - {name}) < quorum(voters):
        return _short(known, f"etcd would have no quorum while {name} restarts")
    return ""


def against_join(known: Membership) -> str:
    """Give the reason why no member may join now; empty: one may. etcd's refusal is less clear."""
    return (
        _short(known, "a member may join only while all others are healthy") if known.ailing else ""
    )


def _short(known: Membership, why: str) -> str:
    ailing = ", ".join(known.ailing) or "none"
    return f"{why} ({len(known.healthy)} of {len(known.voters)} are healthy; unhealthy: {ailing})"
