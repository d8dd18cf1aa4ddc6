"""The output of etcdctl -> values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, Field, RootModel

from provision.model.observed import EtcdMember, EtcdView
from provision.model.sections import Sections

M = TypeVar("M", bound=BaseModel)


class _Member(BaseModel):
    id: int = Field(alias="ID", ge=0)
    name: str = ""
    peer_urls: tuple[str, ...] = Field(default=(), alias="peerURLs")
    learner: bool = Field(default=False, alias="isLearner")


class _Members(BaseModel):
    members: tuple[_Member, ...]


class _Header(BaseModel):
    member_id: int = Field(ge=0)
    cluster_id: int = Field(default=0, ge=0)
    revision: int = 0


class Status(BaseModel):
    """A member's own status. Sizes are in bytes."""

    header: _Header
    version: str = ""
    size: int = Field(default=0, alias="dbSize")
    in_use: int = Field(default=0, alias="dbSizeInUse")
    quota: int = Field(default=0, alias="dbSizeQuota")
    leader: int = Field(default=0, ge=0)
    raft_index: int = Field(default=0, alias="raftIndex")
    errors: tuple[str, ...] = ()


class _Endpoint(BaseModel):
    status: Status = Field(alias="Status")


class _Endpoints(RootModel[tuple[_Endpoint]]):
    """The answer of one endpoint: the probe asks only one."""


def endpoint_status(lines: Iterable[str]) -> tuple[Status | None, str]:
    """Read the output of `etcdctl endpoint status -w json` for one endpoint.

    Returns:
        (status, ""), or (None, the reason).
    """
    found, problem = _answer(_Endpoints, lines)
    return (found.root[0].status if found else None), problem


def member_list(lines: Iterable[str]) -> tuple[tuple[EtcdMember, ...] | None, str]:
    """Read the output of `etcdctl member list -w json`.

    Returns:
        (members, ""), or (None, the reason).
    """
    found, problem = _answer(_Members, lines)
    if found is None:
        return None, problem
    return tuple(
        EtcdMember(id=f"{m.id:x}", name=m.name, peer_urls=m.peer_urls, learner=m.learner)
        for m in found.members
    ), ""


def view(output: Sections) -> EtcdView | None:
    """The answers of the machine's own member; None: the probe saw no member there."""
    if "etcd-status" not in output:
        return None
    status, silent = endpoint_status(output.lines("etcd-status"))
    if status is None:
        return EtcdView(healthy=False, error=silent)
    members, problem = member_list(output.lines("etcd-members"))
    healthy = members is not None
    if members is None:
        members, _ = member_list(output.lines("etcd-remembered"))
    return EtcdView(
        healthy=healthy,
        id=f"{status.header.member_id:x}",
        leader=f"{status.leader:x}" if status.leader else "",
        version=status.version,
        db_size=status.size,
        revision=status.header.revision,
        members=members or (),
        error="; ".join(filter(None, (problem, *status.errors))),
    )


def _answer(model: type[M], lines: Iterable[str]) -> tuple[M | None, str]:
    """(answer, ""); or, if no line is an answer, (None, the last line: it shows the reason)."""
    reason = "no answer"
    for line in lines:
        try:
            return model.model_validate_json(line), ""
        except ValueError:
            if line != "null":  # etcdctl prints it after an error
                reason = line.strip()
    return None, reason
