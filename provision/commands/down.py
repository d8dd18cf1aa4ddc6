"""`down`: take a cluster apart, and give its machines back as they were."""

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

    Machines that we made are removed with all that is on them; of others, what their record says
    is ours.

    Returns:
        Machine -> why it could not be cleaned, for those that do not answer.

    Raises:
        RefusedError: somebody else works on the cluster.
        PhaseError: something of ours is still on a machine that does answer.
    """
    source = source_of(draft)
    left: dict[str, str] = {}
    if not draft.source.makes_machines:
        with open_session(inventory, progress) as session:
            look = session.observe()
            with hold(session, "down", look):
                left = _clean(session, look)
    elif not absent(source, draft):
        # Somebody's run is not cut off; who begins one from now on finds no machines.
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
    with session.progress.phase("remove", "what we put on the machines", names):
        hint = "clusterctl down again goes on from here"
        fan_out("remove", there, partial(clean_machine, session), hint=hint)
    return look.unreachable()


def clean_machine(session: Session, machine: Machine) -> tuple[int, str, str]:
    """Remove what we put on a machine: (exit status, stdout, stderr)."""
    try:
        code, out, error = session.engine.shell(machine, teardown.DOWN)
    except UnreachableError as unreachable:
        return 1, "", unreachable.message
    session.progress.done(machine.name, failed=code != 0)
    return code, out, error
