"""Check what a command answered: return what it printed, or the failure of its machine.

`checked(engine.shell(machine, command), machine, "etcd", "list the members")` is the way to run a
command that must succeed.
"""

from __future__ import annotations

from provision.model.cluster import Machine
from provision.model.errors import Failure, PhaseError

Answer = tuple[int, str, str]  # exit status, stdout, stderr
_LONGEST = 2000  # characters of error output that an operator reads


def checked(answer: Answer, machine: Machine, phase: str, step: str, *, hint: str = "") -> str:
    """What the command printed on stdout.

    Args:
        phase, step: for the error: what was being done.
        hint: what to do next if it failed.

    Raises:
        PhaseError: its exit status is not 0.
    """
    if problem := failure(answer, machine, step):
        raise PhaseError(phase, [problem], hint=hint)
    return answer[1]


def failure(answer: Answer, machine: Machine, step: str) -> Failure | None:
    """The machine's failure, if the command's exit status is not 0."""
    code, _, error = answer
    if code == 0:
        return None
    return Failure(machine.name, step, trimmed(error) or f"exit status {code}")


def trimmed(error: str) -> str:
    """The end of a command's error output."""
    return error.strip()[-_LONGEST:]
