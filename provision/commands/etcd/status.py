"""The state of etcd's members, and what is wrong with them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.errors import Finding
from provision.model.observed import EtcdMember
from provision.model.sections import Sections
from provision.observe.parse_etcd import endpoint_status, member_list

NOSPACE = "NOSPACE"
_ALARM = re.compile(r"alarm:(\w+)")
# etcd's default quota is 2 GiB; at the quota writes stop, so warn before.
_FULL = 0.8
# Bytes. Defragmentation pauses a member; it is worth that when it frees half of a file of this size.
_WORTH = 100 << 20


@dataclass(frozen=True)
class Member:
    """What a machine's member says of itself. If it does not answer, only `error` is set.

    Attributes:
        id, cluster: its own and its cluster's, hexadecimal, as etcdctl prints them.
        quorum: it answered a linearizable read.
        size, in_use, quota: bytes: the file, the used part of it, the limit.
        raft_index: the end of its log; the survivor with the highest index has lost least.
        listed: the cluster's members, as this one knows them.
        error: why it does not answer, or cannot work.
    """

    machine: str
    id: str = ""
    cluster: str = ""
    leader: bool = False
    quorum: bool = False
    version: str = ""
    size: int = 0
    in_use: int = 0
    quota: int = 0
    revision: int = 0
    raft_index: int = 0
    alarms: tuple[str, ...] = ()
    listed: tuple[EtcdMember, ...] = ()
    error: str = ""

    @property
    def answers(self) -> bool:
        return bool(self.id)


def parse(machine: str, output: str, error: str = "") -> Member:
    """Read what `status.sh` printed on a machine; `error`: why the machine did not answer."""
    if error:
        return Member(machine, error=error)
    said = Sections.of(output)
    status, _ = endpoint_status(said.lines("status"))
    members, _ = member_list(said.lines("members"))
    if status is None and "status" not in said:
        return Member(machine, error=" ".join(said.lines("error")) or "no answer")
    if status is None or (members is None and said.lines("members")):
        return Member(machine, error=f"its answer cannot be read: {output[:200]}")
    alone = " ".join(said.lines("alone"))
    return Member(
        machine,
        id=f"{status.header.member_id:x}",
        cluster=f"{status.header.cluster_id:x}",
        leader=status.leader == status.header.member_id,
        quorum="alone" not in said,
        version=status.version,
        size=status.size,
        in_use=status.in_use,
        quota=status.quota,
        revision=status.header.revision,
        raft_index=status.raft_index,
        alarms=tuple(sorted(set(_ALARM.findall(" ".join(status.errors))))),
        listed=members or (),
        error=f"has no quorum: {alone}" if "alone" in said else "",
    )


def listed(members: Iterable[Member]) -> tuple[EtcdMember, ...]:
    """The member list of the cluster; without a quorum, the list that one member remembers."""
    answering = sorted((m for m in members if m.listed), key=lambda m: not m.quorum)
    return answering[0].listed if answering else ()


def judge(cluster: Cluster, members: Iterable[Member]) -> list[Finding]:
    """What is wrong, and what to type next; warnings are not fatal."""
    members = tuple(members)
    path = cluster.inventory
    findings = [Finding(m.machine, m.error) for m in members if m.error]
    if any(NOSPACE in m.alarms for m in members):
        findings.append(
            Finding(
                ", ".join(m.machine for m in members if NOSPACE in m.alarms),
                f"etcd is full ({NOSPACE}): it refuses every write",
                f"{clusterctl('etcd', 'defrag', path)} compacts, defragments and ends the alarm",
            )
        )
    findings += [
        Finding(
            m.machine,
            f"has the alarm {alarm}: its data differ from those of the other members",
            f"{clusterctl('etcd', 'restore', path)}, or replace this member",
        )
        for m in members
        for alarm in m.alarms
        if alarm != NOSPACE
    ]
    if not any(m.quorum for m in members):
        findings.append(
            Finding(
                cluster.name,
                "etcd has no quorum: nothing can be written",
                f"start the machines; if they are lost for good: {clusterctl('recover', path)}",
            )
        )
    findings += _split(cluster, members)
    findings += _memberships(cluster, members)
    findings += _sizes(cluster, members)
    return findings


def _split(cluster: Cluster, members: tuple[Member, ...]) -> list[Finding]:
    """Find members of two clusters: a machine came back after a recovery, with its old data."""
    groups: dict[str, list[str]] = {}
    for m in members:
        if m.cluster:
            groups.setdefault(m.cluster, []).append(m.machine)
    if len(groups) < 2:
        return []
    sides = " and ".join(", ".join(names) for names in groups.values())
    return [
        Finding(
            cluster.name,
            f"its members belong to {len(groups)} separate clusters: {sides}",
            "stop etcd at once on each machine of the older one: "
            f"{clusterctl('ssh', cluster.inventory, 'NAME', '--', 'systemctl', 'stop', 'etcd')}; "
            f"then: {clusterctl('node', 'replace', cluster.inventory, 'NAME')}",
        )
    ]


def _memberships(cluster: Cluster, members: tuple[Member, ...]) -> list[Finding]:
    known = listed(members)
    if not known:
        return []
    wanted = {m.name for m in cluster.etcd_members}
    names = {entry.name for entry in known}
    findings = [
        Finding(name, "is a member, and not in the inventory")
        for name in sorted(names - wanted - {""})
    ]
    findings += [Finding(name, "is not a member") for name in sorted(wanted - names)]
    findings += [
        Finding(entry.name or entry.id, "is only a learner: it has no vote yet", fatal=False)
        for entry in known
        if entry.learner
    ]
    return findings


def _sizes(cluster: Cluster, members: tuple[Member, ...]) -> list[Finding]:
    path = cluster.inventory
    findings = []
    for m in members:
        if m.quota and NOSPACE not in m.alarms and m.size > _FULL * m.quota:
            what = f"its data take {m.size / m.quota:.0%} of the quota, {m.quota >> 20} MiB"
            hint = f"{clusterctl('etcd', 'defrag', path)}, or delete objects that are not needed"
        elif m.size > _WORTH and m.in_use < m.size / 2:
            what = f"of its {m.size >> 20} MiB only {m.in_use >> 20} MiB are in use"
            hint = f"{clusterctl('etcd', 'defrag', path)} frees the rest"
        else:
            continue
        findings.append(Finding(m.machine, what, hint, fatal=False))
    return findings


def as_json(members: Iterable[Member], findings: Iterable[Finding]) -> dict[str, Any]:
    """The state and the findings as data for JSON."""
    members, findings = tuple(members), tuple(findings)
    names = {entry.id: entry for entry in listed(members)}
    return {
        "healthy": not any(f.fatal for f in findings),
        "quorum": any(m.quorum for m in members),
        "leader": next((m.machine for m in members if m.leader), ""),
        "members": {
            m.machine: {
                "id": m.id,
                "answers": m.answers,
                "leader": m.leader,
                "learner": m.id in names and names[m.id].learner,
                "version": m.version,
                "db_size": m.size,
                "db_size_in_use": m.in_use,
                "db_quota": m.quota,
                "revision": m.revision,
                "raft_index": m.raft_index,
                "alarms": list(m.alarms),
                "error": m.error,
            }
            for m in members
        },
        "problems": [
            {"where": f.where, "what": f.what, "hint": f.hint, "fatal": f.fatal} for f in findings
        ],
    }
