"""`down`: remove a cluster from its machines, or with its machines."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from provision.apply import teardown
from provision.apply.fanout import fan_out
from provision.apply.lock import hold
from provision.apply.session import Session, open_session
from provision.inventory import Draft
from provision.local import cache_of
from provision.local.operators import this_operator
from provision.local.progress import Progress
from provision.machines.locate import absent
from provision.machines.sources import source_of
from provision.model.cluster import Machine
from provision.model.errors import UnreachableError
from provision.model.look import Look


def take_apart(draft: Draft, inventory: Path, progress: Progress) -> dict[str, str]:
    """Remove the cluster of an inventory.

    Machines that clusterctl made are removed. On other machines, clusterctl removes what their
    record lists.

    Returns:
        Machine that does not answer -> why.

    Raises:
        RefusedError: another operator works on the cluster.
        PhaseError: a machine that answers could not be cleaned.
    """
    source = source_of(draft)
    left: dict[str, str] = {}
    if not draft.source.makes_machines:
        with open_session(inventory, progress) as session:
            look = session.observe()
            with hold(session, "down", look):
                left = _clean(session, look)
    elif not absent(source, draft):
        # Do not interrupt another operator's run; a run that begins after this finds no machines.
        with open_session(inventory, progress) as session, hold(session, "down"):
            pass
    cache = cache_of(draft)
    with cache.hold(this_operator(f"clusterctl down {inventory}")):
        source.destroy(draft, progress)
        if not left:
            cache.forget()
    return left


def _clean(session: Session, look: Look) -> dict[str, str]:
    there = look.answering(session.cluster.machines)
    names = tuple(m.name for m in there)
    with session.progress.phase("remove", "what clusterctl installed", names):
        hint = "run clusterctl down again: it goes on where it stopped"
        fan_out("remove", there, partial(clean_machine, session), hint=hint)
    return look.unreachable()


def clean_machine(session: Session, machine: Machine) -> tuple[int, str, str]:
    """Remove what clusterctl installed on a machine: (exit status, stdout, stderr)."""
    try:
        code, out, error = session.engine.shell(machine, teardown.DOWN)
    except UnreachableError as unreachable:
        return 1, "", unreachable.message
    session.progress.done(machine.name, failed=code != 0)
    return code, out, error
