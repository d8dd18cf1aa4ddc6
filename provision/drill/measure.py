"""Measure one fault: write all the time, and see how long writes fail, and which are lost."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from provision.drill import outage
from provision.drill.client import Client
from provision.drill.faults import Fault
from provision.drill.outage import Attempt
from provision.drill.site import Site, await_, now
from provision.drill.tunnel import Tunnel
from provision.drill.writer import Writer
from provision.local.progress import Progress
from provision.local.runlog import RunLog
from provision.model.errors import ClusterctlError, UnhealthyError

STEADY = 2.0  # seconds of undisturbed writes before the fault
CALM = 3.0  # seconds of undisturbed writes after which writes count as working again
WATCHED = 6.0  # seconds that a fault lasts at least: some have a late effect
BACK = 120.0  # seconds until writes must work again
HEALED = 240.0  # seconds until the cluster must have recovered
COPIED = 20.0  # seconds until every member must have every write


@dataclass(frozen=True)
class Result:
    """What a fault did to a cluster. Times are in seconds; None: no time was measured.

    Attributes:
        endpoint: time until writes through the API's address worked again: from the fault, or,
            for a fault that is `total`, from the time at which undoing began.
        loopback: the same for writes through a node's own proxy.
        healed: time from the beginning of undoing until the cluster had recovered.
        acknowledged: number of acknowledged writes.
        lost: names of acknowledged writes that must be on every member afterwards and are not.
        given_up: number of other acknowledged writes that are not on every member. They may be
            lost: the data from which the cluster recovers cannot include them.
        seen: a note on what happened.
        problem: what went wrong; empty: nothing.
    """

    fault: str
    victim: str = ""
    endpoint: float | None = None
    loopback: float | None = None
    healed: float | None = None
    acknowledged: int = 0
    lost: tuple[str, ...] = ()
    given_up: int = 0
    seen: str = ""
    problem: str = ""

    @property
    def survived(self) -> bool:
        return not self.problem and not self.lost


@dataclass
class Measurement:
    """The measurement of a fault.

    Attributes:
        at: when the fault began; seconds of the monotonic clock.
        undone: when undoing had ended, by the same clock.
        attempts: `endpoint`, `loopback` -> all writes.
    """

    site: Site
    fault: Fault
    progress: Progress
    result: Result
    at: float = 0.0
    undone: float = math.inf
    attempts: Mapping[str, Sequence[Attempt]] = field(default_factory=dict)
    writers: Mapping[str, Writer] = field(default_factory=dict)

    def go(self) -> None:
        site, fault = self.site, self.fault
        node = site.cluster.machine(fault.proxy(site, self.result.victim))
        prefix = f"{fault.name}-{secrets.token_hex(3)}"
        with Tunnel(node, site.known_hosts) as tunnel:
            clients = {
                "endpoint": site.client,
                "loopback": Client(site.kubeconfig, "127.0.0.1", tunnel.port),
            }
            self.writers = {
                path: Writer(client, f"{prefix}-{path}") for path, client in clients.items()
            }
            with ExitStack() as stack:
                for writer in self.writers.values():
                    stack.enter_context(writer)
                try:
                    self._suffer()
                finally:
                    self.attempts = {p: w.settle() for p, w in self.writers.items()}

    def count(self) -> None:
        """Look for every acknowledged write on every member.

        Raises:
            MachinesError: a member does not answer.
        """
        names = [n for attempts in self.attempts.values() for n in outage.acknowledged(attempts)]
        self.result = replace(self.result, acknowledged=len(names))
        excused = self.excused
        kept = [name for name in names if name not in excused]
        with suppress(UnhealthyError):
            await_("copies", lambda: not outage.lost(kept, self.site.stored()), COPIED)
        stored = self.site.stored()
        given_up = len(outage.lost(excused, stored))
        self.result = replace(self.result, lost=outage.lost(kept, stored), given_up=given_up)

    @property
    def excused(self) -> frozenset[str]:
        """Names of writes that may be lost."""
        attempts = (a for written in self.attempts.values() for a in written)
        if not self.fault.may_lose:
            return frozenset()
        return outage.excused(attempts, self.at, self.undone)

    def _suffer(self) -> None:
        site, fault, victim = self.site, self.fault, self.result.victim
        self._say("writes begin")
        await_("writes before the fault", lambda: self._calm(STEADY), BACK)
        self._say(fault.summary)
        self.at = time.monotonic()
        try:
            self.result = replace(self.result, seen=fault.inflict(site, victim) or "")
            if not fault.total:
                time.sleep(max(0.0, self.at + WATCHED - time.monotonic()))
                await_("writes while the fault lasts", lambda: self._calm(CALM), BACK)
                self._outage(self.at)
        finally:
            since, undoing = now(), time.monotonic()
            fault.undo(site, victim)
        self.undone = time.monotonic()
        self._say("waiting until all is well")
        await_("all is well", lambda: fault.over(site, since), HEALED)
        self.result = replace(self.result, healed=time.monotonic() - undoing)
        if fault.total:
            await_("writes after the fault", lambda: self._calm(CALM), BACK)
            self._outage(undoing)

    def _calm(self, seconds: float) -> bool:
        at = time.monotonic()
        return all(outage.calm(w.attempts(), at) >= seconds for w in self.writers.values())

    def _outage(self, since: float) -> None:
        seen = {p: outage.outage(w.attempts(), since) for p, w in self.writers.items()}
        self.result = replace(self.result, endpoint=seen["endpoint"], loopback=seen["loopback"])

    def _say(self, text: str) -> None:
        self.progress.update(self.result.victim, text)


def measure(site: Site, fault: Fault, progress: Progress, log: RunLog) -> Measurement:
    """Cause a fault in a running cluster, undo it, and measure its effect.

    Errors of clusterctl are not raised: they are in `result.problem`.
    """
    try:
        result = Result(fault.name, fault.victim(site))
    except ClusterctlError as error:
        return Measurement(site, fault, progress, Result(fault.name, problem=error.message))
    measurement = Measurement(site, fault, progress, result)
    with progress.phase(fault.name, fault.summary, (result.victim,)):
        for step in (measurement.go, measurement.count):
            try:
                step()
            except ClusterctlError as error:
                problem = measurement.result.problem or error.message
                measurement.result = replace(measurement.result, problem=problem)
        result = measurement.result
        progress.done(result.victim, result.problem, failed=not result.survived)
    for path, attempts in measurement.attempts.items():
        for a in attempts:
            took = f"{a.began - measurement.at:+.2f} s, {a.ended - a.began:.2f} s"
            log.note(f"{fault.name} {path}", f"{a.name} {took} {a.error or 'acknowledged'}")
    return measurement
