"""Certificate requests for an external authority: machines make the keys, and keep them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from provision.apply.fanout import fan_out
from provision.apply.session import Session
from provision.commands import converge
from provision.commands.certs import renewal
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError
from provision.pki import requests, table
from provision.pki.leaf import Leaf
from provision.plan import external_authority
from provision.plan.leaves import leaf_problem

Requests = dict[str, dict[Leaf, str]]


def refuse_own(cluster: Cluster) -> None:
    """Check that the authority is external.

    Raises:
        RefusedError: the cluster has authorities of its own.
    """
    if not cluster.certificates.external:
        message = f"{cluster.name} has its own authorities: it needs no external one"
        raise RefusedError(
            message,
            hint=f"to renew its certificates: {clusterctl('certs', 'renew', cluster.inventory)}. A new cluster "
            'gets an external authority by "certificates": {"authority": "external"}',
        )


def refuse_external(cluster: Cluster, what: str) -> None:
    """Check that the cluster has authorities of its own.

    Raises:
        RefusedError: the authority is external; the hint says what to do.
    """
    if cluster.certificates.external:
        raise external_authority.refusal(cluster, what)


def request_certificates(
    session: Session, names: frozenset[str], *, everything: bool = False
) -> Requests:
    """Make keys and requests on the machines.

    Args:
        names: of leaves; empty: those that are needed.
        everything: all leaves, also those whose certificates are good.

    Returns:
        machine -> leaf -> request, PEM; only machines that need one.

    Raises:
        RefusedError: no leaf has such a name.
        PreflightError: the machines are not fit.
        PhaseError: a machine could not make them.
    """
    look = converge.look_at_all(session)
    converge.check(session, look)
    trust = session.known_trust(look)
    renewal.refuse_unknown(session.cluster, names)
    now = datetime.now(UTC)
    wanted: dict[Machine, list[Leaf]] = {}
    for machine in look.answering(session.cluster.machines):
        seen = look[machine.name]
        for leaf in table.node_leaves(session.cluster, machine):
            needed = trust is None or (
                leaf_problem(leaf, trust, seen, now)
                and not external_authority.ready(leaf, trust, seen, now)
            )
            if leaf.name in names if names else everything or needed:
                wanted.setdefault(machine, []).append(leaf)
    if not wanted:
        return {}
    with session.progress.phase(
        "requests", "keys, and what the authority has to sign", tuple(m.name for m in wanted)
    ):
        answers = everywhere(
            session,
            {
                machine: (requests.request_program(leaves), b"")
                for machine, leaves in wanted.items()
            },
        )
    made = {}
    for machine, leaves in wanted.items():
        printed = requests.parse(answers[machine])
        made[machine.name] = {leaf: printed[leaf.name] for leaf in leaves}
    return made


def everywhere(
    session: Session, programs: Mapping[Machine, tuple[str, bytes]]
) -> dict[Machine, str]:
    """Run a program with its input on each machine, side by side; returns what it printed.

    Raises:
        PhaseError: with every machine on which it failed.
    """
    return fan_out(
        "requests",
        programs,
        lambda machine: session.engine.shell(machine, *programs[machine]),
        hint="run the same command again",
    )
