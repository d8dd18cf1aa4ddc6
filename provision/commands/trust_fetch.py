"""`trust fetch`: copy the cluster's keys from its masters to this computer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from provision.apply.session import Session
from provision.model.errors import RefusedError, TrustError, UnreachableError
from provision.model.look import reasons
from provision.pki.trust import Trust


@dataclass(frozen=True)
class Fetched:
    """What `fetch_trust` found.

    Attributes:
        sources: masters that have these keys.
        passed_over: other masters -> why their keys could not be read.
        cache: what this computer had before.
    """

    trust: Trust
    sources: tuple[str, ...]
    passed_over: Mapping[str, str]
    cache: Literal["empty", "the same", "other files"]


def fetch_trust(session: Session) -> Fetched:
    """Read the keys from every master that answers, and keep them in the cache. Changes no machine.

    Raises:
        UnreachableError: no master answers.
        RefusedError: no master has keys.
        TrustError: masters disagree, or this computer has another cluster's keys.
    """
    look = session.observe()
    masters = session.cluster.masters
    passed_over = look.unreachable(masters)
    if len(passed_over) == len(masters):
        message = f"no master of {session.cluster.name} answers: {reasons(passed_over)}"
        raise UnreachableError(
            message, hint="one master that answers and still has its disk is enough"
        )
    trusts: dict[str, Trust] = {}
    for machine in masters:
        if machine.name not in passed_over:
            try:
                trusts[machine.name] = session.read_trust(machine)
            except (TrustError, UnreachableError) as error:
                passed_over[machine.name] = error.message
    if not trusts:
        message = f"no master of {session.cluster.name} could give its keys: {reasons(passed_over)}"
        raise RefusedError(
            message,
            hint="does the cluster exist? One master with a complete /etc/kubernetes/pki is needed",
        )
    trust = agreed(trusts)
    recorded = look.fingerprint()
    if recorded and recorded != trust.fingerprint:
        message = (
            f"{', '.join(trusts)} have keys of the authority {trust.fingerprint[:12]}, but the "
            f"machines' records name {recorded[:12]}"
        )
        raise TrustError(message, hint="find out who changed /etc/kubernetes/pki on these masters")
    before = _keep(session, trust)
    return Fetched(trust, tuple(trusts), passed_over, before)


def agreed(trusts: Mapping[str, Trust]) -> Trust:
    """The trust that all these masters share.

    Args:
        trusts: master -> its keys; at least one.

    Raises:
        TrustError: naming the files that differ, and which masters have the same.
    """
    files = {name: trust.files() for name, trust in trusts.items()}
    paths = sorted({path for of_one in files.values() for path in of_one})
    differing = [p for p in paths if len({f.get(p) for f in files.values()}) > 1]
    if differing:
        parties: dict[Trust, list[str]] = {}
        for name, trust in trusts.items():
            parties.setdefault(trust, []).append(name)
        sides = " against ".join(", ".join(names) for names in parties.values())
        message = f"the masters disagree ({sides}) on {', '.join(differing)}; nothing was kept"
        raise TrustError(
            message,
            hint="a rotation may be half done: finish it on the computer where it was started",
        )
    return next(iter(trusts.values()))


def _keep(session: Session, trust: Trust) -> Literal["empty", "the same", "other files"]:
    cached = session.cache.trust()
    if cached is not None and cached.fingerprint != trust.fingerprint:
        message = (
            f"this computer has keys of another authority ({cached.fingerprint[:12]}) for "
            f"{session.cluster.name}; the masters have {trust.fingerprint[:12]}"
        )
        raise TrustError(
            message,
            hint=f"make sure that these are the right machines, then move {session.cache.pki} away",
        )
    session.cache.keep(trust)
    if cached is None:
        return "empty"
    return "the same" if cached == trust else "other files"
