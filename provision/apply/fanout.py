"""Run the same command on many machines at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from provision.apply.checked import Answer, failure
from provision.model.cluster import Machine
from provision.model.errors import PhaseError


def fan_out(
    phase: str,
    machines: Iterable[Machine],
    job: Callable[[Machine], Answer],
    *,
    hint: str,
) -> dict[Machine, str]:
    """Run a program on all machines at once; one on which it fails does not stop the others.

    Args:
        phase: its name, for errors.
        job: runs it on one of them: (exit status, stdout, stderr). An error of it is raised here.
        hint: what to do next if it failed on a machine.

    Returns:
        machine -> what the program printed there.

    Raises:
        PhaseError: with every machine on which it failed.
    """
    jobs = {machine: gevent.spawn(job, machine) for machine in machines}
    gevent.joinall(list(jobs.values()), raise_error=True)
    answers = {machine: greenlet.value for machine, greenlet in jobs.items()}
    problems = (failure(answer, machine, phase) for machine, answer in answers.items())
    if failures := [problem for problem in problems if problem]:
        raise PhaseError(phase, failures, hint=hint)
    return {machine: out for machine, (_, out, _) in answers.items()}
