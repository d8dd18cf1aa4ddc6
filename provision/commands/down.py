"""`down`: remove a cluster from its machines, or with its machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from provision.apply import teardown
from provision.apply.fanout import fan_out
from provision.apply.lock import hold
from provision.apply.session import Session, open_session
from provision.inventory import Draft
from provision.local import cache_of, changes
from provision.local.operators import this_operator
from provision.local.progress import Progress
from provision.machines.locate import absent
from provision.machines.sources import source_of
from provision.model.cluster import Machine
from provision.model.commands import clusterctl
from provision.model.errors import UnreachableError
from provision.model.look import Look


@dataclass(frozen=True)
class Removed:
    """What remains after `down`.

    Attributes:
        left: machine that does not answer -> why.
        kernel: machine -> kernel settings that keep clusterctl's values until a reboot, because an
            older clusterctl did not record the earlier values: `net.ipv4.ip_forward = 1`.
    """

    left: dict[str, str] = field(default_factory=dict)
    kernel: dict[str, tuple[str, ...]] = field(default_factory=dict)


def take_apart(draft: Draft, inventory: Path, progress: Progress) -> Removed:
    """Remove the cluster of an inventory.

    Machines that clusterctl made are removed. On other machines, clusterctl removes what their
    record lists.

    Raises:
        RefusedError: another operator works on the cluster.
        PhaseError: a machine that answers could not be cleaned.
    """
    source = source_of(draft)
    removed = Removed()
    if not draft.source.makes_machines:
        with open_session(inventory, progress) as session:
            look = session.observe()
            with hold(session, "down", look):
                removed = _clean(session, look)
    elif not absent(source, draft):
        # Do not interrupt another operator's run; a run that begins after this finds no machines.
        with open_session(inventory, progress) as session, hold(session, "down"):
            pass
    cache = cache_of(draft)
    with cache.hold(this_operator(clusterctl("down", inventory))):
        changes.begin(f"which machines {draft.name} has")
        source.destroy(draft, progress)
        if not removed.left:
            cache.forget()
    return removed


def _clean(session: Session, look: Look) -> Removed:
    there = look.answering(session.cluster.machines)
    names = tuple(m.name for m in there)
    with session.progress.phase("remove", "what clusterctl installed", names):
        hint = f"run it again, it continues: {clusterctl('down', session.cluster.inventory)}"
        answers = fan_out("remove", there, partial(clean_machine, session), hint=hint)
    kernel = {machine.name: tuple(out.splitlines()) for machine, out in answers.items() if out}
    return Removed(look.unreachable(), kernel)


def clean_machine(session: Session, machine: Machine) -> tuple[int, str, str]:
    """Remove what clusterctl installed on a machine: (exit status, stdout, stderr).

    The stdout has the kernel settings that stay, one per line (`Removed.kernel`).
    """
    try:
        code, out, error = session.engine.shell(machine, teardown.DOWN)
    except UnreachableError as unreachable:
        return 1, "", unreachable.message
    session.progress.done(machine.name, failed=code != 0)
    return code, out, error
