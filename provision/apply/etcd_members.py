"""The steps by which a member joins a running etcd, and leaves it. Each may be repeated.

A member joins as a learner, without a vote, and is promoted once it has caught up. It is sealed,
that is marked as a permanent member, when it has answered a linearizable read. Commands for the
cluster run on the machine of a healthy member.
"""

from __future__ import annotations

from collections.abc import Mapping

from provision.apply.checked import checked
from provision.apply.programs import program
from provision.apply.session import Session
from provision.desired.components.etcd import etcdctl, peer_url
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.errors import Failure, PhaseError, UnreachableError
from provision.model.look import Look
from provision.model.observed import EtcdMember
from provision.observe.parse_etcd import member_list

PHASE = "etcd"
# etcd changes its members only after the others have been connected for 5 s, and promotes a learner
# only after it has caught up.
PATIENCE = 60  # seconds


def healthy_member(look: Look, *, but: str = "") -> Machine:
    """A machine whose member has a quorum.

    Args:
        but: not this machine.

    Raises:
        UnreachableError: no member has a quorum.
    """
    for machine in look.cluster.etcd_members:
        seen = look.get(machine.name)
        if machine.name != but and seen and seen.etcd and seen.etcd.healthy:
            return machine
    message = f"no member of {look.cluster.name}'s etcd has a quorum"
    raise UnreachableError(message, hint=clusterctl("etcd", "status", look.cluster.inventory))


def members(session: Session, via: Machine) -> tuple[EtcdMember, ...]:
    """The members, by etcd's own list.

    Raises:
        PhaseError: the list could not be read.
    """
    step = "list the members"
    found, problem = member_list(_ask(session, via, step, "member list -w json").splitlines())
    if found is None:
        raise PhaseError(PHASE, [Failure(via.name, step, problem)])
    return found


def add_learner(session: Session, via: Machine, machine: Machine) -> Mapping[str, str]:
    """Add this machine's member, which has no data yet, to the cluster as a learner.

    Returns:
        Name -> peer URL of all members, the new one included.
    """
    for learner in _learners(session, via, machine):
        # No data is lost with the learner: it had only its own copy, if any.
        _patiently(session, via, "remove the learner", f"member remove {learner.id}")
    command = f"member add {machine.name} --learner --peer-urls={peer_url(machine)}"
    _patiently(session, via, f"add {machine.name} as a learner", command)
    return {m.name or machine.name: m.peer_urls[0] for m in members(session, via)}


def promote(session: Session, via: Machine, machine: Machine) -> None:
    """Give the learner of this machine a vote, as soon as it has caught up."""
    for learner in _learners(session, via, machine):
        _patiently(session, via, f"promote {machine.name}", f"member promote {learner.id}")


def seal(session: Session, machine: Machine, health: str) -> None:
    """Mark the machine's member as permanent, as soon as it answers with the quorum.

    Args:
        health: the component's own check, which writes the mark.
    """
    wait = program("member", health=health, patience=str(PATIENCE))
    _shell(session, machine, "wait until it answers as a member", wait)


def remove(session: Session, via: Machine, name: str) -> None:
    """Remove a member from etcd's list, if the list has it."""
    urls = {peer_url(m) for m in session.cluster.etcd_members if m.name == name}
    for member in members(session, via):
        if member.name == name or (not member.name and urls & set(member.peer_urls)):
            _patiently(session, via, f"remove the member {name}", f"member remove {member.id}")


def started(cluster: Cluster, machine: Machine) -> str:
    """Shell program that succeeds when the member answers, even as a learner."""
    return f"{etcdctl(cluster, machine)} endpoint status >/dev/null"


def _learners(session: Session, via: Machine, machine: Machine) -> tuple[EtcdMember, ...]:
    """The learners of this machine. A learner that has not started yet has no name."""
    return tuple(
        member
        for member in members(session, via)
        if member.learner and (member.name == machine.name or peer_url(machine) in member.peer_urls)
    )


def _ask(session: Session, via: Machine, step: str, subcommand: str) -> str:
    return _shell(session, via, step, f"{etcdctl(session.cluster, via)} {subcommand}")


def _patiently(session: Session, via: Machine, step: str, subcommand: str) -> None:
    """Run etcdctl, and again while etcd answers that it is too early (`etcdctl.sh`)."""
    command = f"{etcdctl(session.cluster, via)} {subcommand}"
    repeat = program("etcdctl", command=command, patience=str(PATIENCE))
    _shell(session, via, step, repeat)


def _shell(session: Session, via: Machine, step: str, command: str) -> str:
    return checked(session.engine.shell(via, command), via, PHASE, step)
