"""Defragment etcd and end the NOSPACE alarm: one member at a time, the leader last."""

from __future__ import annotations

import time
from dataclasses import dataclass

from provision.apply.checked import checked
from provision.apply.session import Session
from provision.commands.etcd.snapshot import members
from provision.commands.etcd.status import NOSPACE, Member
from provision.desired import etcd_programs
from provision.model.commands import clusterctl
from provision.model.errors import UnhealthyError

TIMEOUT = 900  # seconds, for one member
# Above this share of the quota the next writes would raise the alarm again.
_STILL_FULL = 0.95


@dataclass(frozen=True)
class Freed:
    """What a defragmentation did.

    Attributes:
        sizes: machine -> bytes before and after, in the order of the work.
        disarmed: the NOSPACE alarm was active and has ended.
        seconds: wall time.
    """

    sizes: dict[str, tuple[int, int]]
    disarmed: bool
    seconds: float


def defragment(session: Session) -> Freed:
    """Defragment all members that answer. If NOSPACE is active: compact first, end the alarm last.

    Raises:
        UnhealthyError: etcd has no quorum, or the data in use still fill the quota.
        PhaseError: a member failed; those after it were not touched.
    """
    began = time.monotonic()
    path = session.cluster.inventory
    before = members(session)
    if not any(m.quorum for m in before):
        raise UnhealthyError(
            f"etcd of {session.cluster.name} has no quorum; nothing was touched",
            hint=clusterctl("etcd", "status", path),
        )
    full = any(NOSPACE in m.alarms for m in before)
    order = sorted((m for m in before if m.answers), key=lambda m: m.leader)
    with session.progress.phase(
        "defrag", "one member after the other", tuple(m.machine for m in order)
    ):
        if full:
            _do(session, order[-1], "compact")
        for member in order:
            _do(session, member, "defrag")
            session.progress.done(member.machine)
        after = {m.machine: m for m in members(session)}
        if full:
            still = [m for m in after.values() if m.quota and m.size > _STILL_FULL * m.quota]
            if still:
                raise UnhealthyError(
                    f"etcd is still full: {still[0].in_use >> 20} MiB of {still[0].quota >> 20} MiB "
                    f"are in use on {still[0].machine}; the NOSPACE alarm stays",
                    hint="delete objects that are not needed and run this again; or set a larger quota: "
                    '"extra_args": {"etcd": {"quota-backend-bytes": "..."}}, run '
                    f"{clusterctl('up', path)}, then this again",
                )
            _do(session, order[-1], "disarm")
    return Freed(
        {m.machine: (m.size, after[m.machine].size) for m in order},
        full,
        time.monotonic() - began,
    )


def _do(session: Session, member: Member, action: etcd_programs.Action) -> None:
    machine = session.cluster.machine(member.machine)
    session.progress.update(machine.name, action)
    program = etcd_programs.defrag(session.cluster, machine, action)
    answer = session.engine.shell(machine, program, timeout=TIMEOUT)
    if answer[0] != 0:
        session.progress.done(machine.name, failed=True)
    checked(answer, machine, "defrag", action)
