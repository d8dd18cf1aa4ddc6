"""A record of writes -> how long writes failed, and which were lost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise

STALL = 1.0  # seconds without any answer that count as an outage
HANGS = 2.0  # seconds after which a write without an answer counts as failed
PENDING = "no answer yet"


@dataclass(frozen=True)
class Attempt:
    """One write. Times are seconds of the monotonic clock.

    Attributes:
        name: name of the object that the write creates; each attempt has its own.
        ended: time of the answer. For a write that still waits: the time of the look at it.
        error: why the write failed; empty: it was acknowledged.
    """

    name: str
    began: float
    ended: float
    error: str = ""

    @property
    def failed(self) -> bool:
        if self.error == PENDING:
            return self.ended - self.began > HANGS
        return bool(self.error)


def outage(attempts: Iterable[Attempt], since: float) -> float | None:
    """Seconds from `since` until writes worked again.

    Writes work again when the first write after the last failed write is answered; or, if that is
    later, at the first answer after a second without answers. Writes begin at a steady rate and do
    not wait for each other. So a write that hangs does not make the outage longer than it was.

    Returns:
        0.0 if no write failed and answers came all the time; None if the last write failed.
    """
    seen = sorted((a for a in attempts if a.ended >= since), key=lambda a: a.began)
    last = max((i for i, attempt in enumerate(seen) if attempt.failed), default=-1)
    answered = [a.ended for a in seen[last + 1 :] if not a.error]
    if not answered:
        return None
    after_failures = answered[0] - since if last >= 0 else 0.0
    answers = sorted(a.ended for a in seen if not a.error)
    stalls = [at - since for before, at in pairwise([since, *answers]) if at - before > STALL]
    return max([after_failures, *stalls])


def calm(attempts: Sequence[Attempt], now: float) -> float:
    """Seconds for which writes have worked: no write failed, and answers came all the time."""
    answers = sorted(a.ended for a in attempts if not a.error)
    if not answers or now - answers[-1] > STALL:
        return 0.0
    starts = [answers[0], *(at for before, at in pairwise(answers) if at - before > STALL)]
    return now - max([*starts, *(a.began for a in attempts if a.failed)])


def acknowledged(attempts: Iterable[Attempt]) -> tuple[str, ...]:
    return tuple(attempt.name for attempt in attempts if not attempt.error)


def excused(attempts: Iterable[Attempt], since: float, until: float) -> frozenset[str]:
    """Names of writes that were acknowledged after `since` and had begun before `until`."""
    return frozenset(
        a.name for a in attempts if not a.error and a.ended > since and a.began < until
    )


def lost(names: Iterable[str], stored: Mapping[str, AbstractSet[str]]) -> tuple[str, ...]:
    """Names that at least one member does not have.

    Args:
        stored: member -> names of all objects that the member has.
    """
    return tuple(n for n in names if not all(n in there for there in stored.values()))
