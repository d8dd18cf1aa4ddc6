"""The same on many machines, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from provision.model.cluster import Machine
from provision.model.errors import Failure, PhaseError


def fan_out(
    phase: str,
    machines: Iterable[Machine],
    job: Callable[[Machine], tuple[int, str, str]],
    *,
    hint: str,
) -> dict[Machine, str]:
    """Run a program on all machines at once; one on which it fails does not stop the others.

    Args:
        phase: its name, for errors.
        job: runs it on one of them: (exit status, stdout, stderr). What it raises is raised here.
        hint: what to do next when it failed.

    Returns:
        machine -> what it printed.

    Raises:
        PhaseError: with every machine on which it failed.
    """
    jobs = {machine: gevent.spawn(job, machine) for machine in machines}
    gevent.joinall(list(jobs.values()), raise_error=True)
    answers = {machine: greenlet.value for machine, greenlet in jobs.items()}
    failures = [
        Failure(machine.name, phase, error.strip()[-2000:] or f"exit status {code}")
        for machine, (code, _, error) in answers.items()
        if code != 0
    ]
    if failures:
        raise PhaseError(phase, failures, hint=hint)
    return {machine: out for machine, (_, out, _) in answers.items()}
