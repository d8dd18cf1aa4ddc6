"""Every error that clusterctl raises on purpose, and the exit code of each.

    ClusterctlError                1
      + InventoryError             3   the inventory file; nothing was touched
      + PreflightError             4   a machine is not fit for the step; nothing was touched
      + RefusedError               5   the step would do harm; nothing was touched
      + UnreachableError           6   no machine that could do the step answers
      + ArtifactError              7   a binary or image is missing or wrong
      + MachinesError              8   machines could not be made or removed
      + TrustError                 9   keys or certificates do not fit together
      + CertificatesError          9   a certificate signed elsewhere does not fit its request
      + PhaseError                10   a phase failed on one or more machines
      + UnhealthyError            11   the cluster answers, and is not healthy

`clusterctl plan` exits with 2 when there are changes, and `certs list` when a certificate is due,
so no error has that code. Wrong usage of the command line is 64 (EX_USAGE in sysexits.h). A command
whose output is closed before its end is 141, as if SIGPIPE had ended it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_CHANGES = 2
EXIT_DUE = 2
EXIT_USAGE = 64
EXIT_INTERRUPTED = 130
EXIT_CLOSED = 141


class ClusterctlError(Exception):
    """What failed, why, and what to type next.

    Args:
        message: what failed and why, one sentence or more.
        hint: what the user should do next, an instruction.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, found before anything was touched.

    Attributes:
        where: the inventory's field (`cluster.networks.pods`) or the machine's name.
        what: what is wrong, with the value that was found.
        hint: what is allowed, or what to do.
        fatal: False for a warning.
    """

    where: str
    what: str
    hint: str = ""
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class FindingsError(ClusterctlError):
    """Several findings at once; shown as a table."""

    def __init__(self, summary: str, findings: Sequence[Finding], *, hint: str = "") -> None:
        self.findings = tuple(findings)
        lines = "\n".join(f"  {finding}" for finding in self.findings)
        super().__init__(f"{summary}\n{lines}", hint=hint)
        self.summary = summary


class InventoryError(FindingsError):
    exit_code = 3


class PreflightError(FindingsError):
    exit_code = 4


class CertificatesError(FindingsError):
    exit_code = 9


class RefusedError(ClusterctlError):
    exit_code = 5


class UnreachableError(ClusterctlError):
    """No machine that could do the step answers.

    Args:
        off: the machine does not answer at all: it is off, frozen or cut off. False: it answers,
            but its host key, the login or sudo stops clusterctl.
    """

    exit_code = 6

    def __init__(self, message: str, *, hint: str = "", off: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.off = off


class ArtifactError(ClusterctlError):
    exit_code = 7


class MachinesError(ClusterctlError):
    exit_code = 8


class TrustError(ClusterctlError):
    exit_code = 9


@dataclass(frozen=True)
class Failure:
    """What went wrong on one machine in one phase.

    Attributes:
        machine: the machine's name.
        step: the operation, `etcd: start the unit`.
        cause: the last lines of the command's error output.
        journal: the last lines of the journal of the unit concerned, if any.
        hint: what to do next.
    """

    machine: str
    step: str
    cause: str
    journal: str = ""
    hint: str = ""


class PhaseError(ClusterctlError):
    """One phase failed on one or more machines; the others finished it.

    Args:
        phase: the phase's name.
        failures: one entry for each machine that failed.
    """

    exit_code = 10

    def __init__(self, phase: str, failures: Sequence[Failure], *, hint: str = "") -> None:
        self.phase = phase
        self.failures = tuple(failures)
        lines = "\n".join(f"  {f.machine}: {f.step}: {f.cause}" for f in self.failures)
        super().__init__(
            f"phase {phase!r} failed on {len(self.failures)} machine(s):\n{lines}", hint=hint
        )


class UnhealthyError(ClusterctlError):
    exit_code = 11
