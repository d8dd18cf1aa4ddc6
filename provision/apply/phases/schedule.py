"""Decide when a phase begins: after the one before it, or when its dependencies have ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import gevent
from gevent.event import Event

from provision.apply.phases.run import Phase, Run, Work
from provision.local.progress import Progress
from provision.model.cluster import Machine
from provision.model.errors import ClusterctlError, Failure, PhaseError

_UNWIND = 10  # seconds that running phases get to end after Ctrl-C


def execute(run: Run, phases: Iterable[Phase]) -> None:
    """Carry out the phases, each after the one before it. The run ends at the first that fails.

    Raises:
        PhaseError: of that phase, with every machine that failed in it.
    """
    for phase in phases:
        names = phase.machines(run)
        if not names:
            continue
        began = time.monotonic()
        with run.session.progress.phase(phase.name, phase.summary, names) as shown:
            try:
                phase.run(Work(run, phase, run.machines(names), shown))
            finally:
                run.seconds[phase.name] = time.monotonic() - began


def overlap(run: Run, phases: Sequence[Phase]) -> None:
    """Carry out the phases, each as soon as those that it depends on have ended.

    A phase that is not among them, or has nothing to do on a machine, ends there when its own
    dependencies have ended. So phases that depend on it still wait for those.

    After a failure no further phase begins. A phase that has begun goes on, on all its machines.

    Raises:
        PhaseError: with every machine that failed, in every phase that failed.
    """
    _Schedule(run, phases).carry_out()


@dataclass(eq=False)
class _Course:
    """How far a phase has come.

    Attributes:
        machines: where the phase has something to do; None: its dependencies have not ended yet.
        begun, ended: names of machines, also of those where it has nothing to do.
        jobs: greenlets that carry out the phase now.
        shown: the phase's display; None: it has begun on no machine.
    """

    phase: Phase
    machines: tuple[Machine, ...] | None = None
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    jobs: set[gevent.Greenlet] = field(default_factory=set)
    errors: list[Exception] = field(default_factory=list)
    shown: Progress | None = None
    closing: ExitStack = field(default_factory=ExitStack)

    def close(self, error: BaseException | None) -> None:
        """End the display of the phase, if it has not ended yet."""
        self.closing.__exit__(type(error) if error else None, error, None)


class _Schedule:
    """Phases of one run that overlap. All decisions are made in one greenlet, the run's own."""

    def __init__(self, run: Run, phases: Sequence[Phase]) -> None:
        self.run = run
        self.wanted = frozenset(phases)
        self.courses = {phase: _Course(phase) for phase in _with_dependencies(phases)}
        self.names = frozenset(machine.name for machine in run.session.cluster.machines)
        self.news = Event()

    def carry_out(self) -> None:
        try:
            while self._advance():
                self.news.wait()
                self.news.clear()
        except BaseException as error:
            jobs = [job for course in self.courses.values() for job in course.jobs]
            gevent.killall(jobs, timeout=_UNWIND)
            for course in self.courses.values():
                course.close(error)
            raise
        failed = [course for course in self.courses.values() if course.errors]
        for course in self.courses.values():
            course.close(course.errors[0] if course.errors else None)
        if failed:
            raise _together(failed)

    def _advance(self) -> bool:
        """Begin all phases that can begin now. Return whether any phase runs."""
        failed = any(course.errors for course in self.courses.values())
        for course in self.courses.values():  # in order: each sees the earlier decisions
            if course.machines is None and not failed and self._may_enter(course.phase):
                course.machines = self._machines(course.phase)
            if course.machines is not None:
                self._begin(course, failed=failed)
            if course.ended == self.names:
                course.close(None)
        return any(course.jobs for course in self.courses.values())

    def _may_enter(self, phase: Phase) -> bool:
        return all(self.courses[earlier].ended == self.names for earlier in phase.after)

    def _machines(self, phase: Phase) -> tuple[Machine, ...]:
        return self.run.machines(phase.machines(self.run)) if phase in self.wanted else ()

    def _begin(self, course: _Course, *, failed: bool) -> None:
        """Begin a phase on the machines that are ready for it."""
        phase, machines = course.phase, course.machines or ()
        earlier = [self.courses[other].ended for other in phase.after_here]
        ready = {n for n in self.names - course.begun if all(n in ended for ended in earlier)}
        idle = ready - {machine.name for machine in machines}
        course.begun |= idle
        course.ended |= idle
        mine = tuple(machine for machine in machines if machine.name in ready)
        if not mine or (failed and not course.shown):
            return
        if phase.each:
            for machine in mine:
                self._spawn(course, (machine,))
        elif mine == machines:
            self._spawn(course, machines)

    def _spawn(self, course: _Course, machines: tuple[Machine, ...]) -> None:
        phase = course.phase
        if course.shown is None:
            names = tuple(machine.name for machine in course.machines or ())
            course.closing.callback(self._clock, phase, time.monotonic())
            course.shown = course.closing.enter_context(
                self.run.session.progress.phase(phase.name, phase.summary, names)
            )
        course.begun |= {machine.name for machine in machines}

        def finished(machine: Machine) -> None:
            course.ended.add(machine.name)
            self.news.set()

        work = Work(self.run, phase, machines, course.shown, finished)
        course.jobs.add(gevent.spawn(self._job, course, work))

    def _job(self, course: _Course, work: Work) -> None:
        try:
            course.phase.run(work)
            course.ended |= {machine.name for machine in work.machines}
        except Exception as error:  # noqa: BLE001  raised when all running phases have ended
            course.errors.append(error)
        finally:
            course.jobs.discard(gevent.getcurrent())
            self.news.set()

    def _clock(self, phase: Phase, began: float) -> None:
        self.run.seconds[phase.name] = time.monotonic() - began


def _with_dependencies(phases: Iterable[Phase]) -> Iterator[Phase]:
    """These phases and all that they depend on, each after its dependencies."""
    for phase in phases:
        yield from _with_dependencies((*phase.after, *phase.after_here))
        yield phase


def _together(courses: Sequence[_Course]) -> Exception:
    """One error that has all failures of these phases."""
    errors = [error for course in courses for error in course.errors]
    mistakes = [error for error in errors if not isinstance(error, ClusterctlError)]
    if mistakes or len(errors) == 1:
        return (mistakes or errors)[0]
    failures = [failure for course in courses for failure in _failures(course)]
    hints = dict.fromkeys(e.hint for e in errors if isinstance(e, ClusterctlError) and e.hint)
    names = " and ".join(course.phase.name for course in courses)
    return PhaseError(names, failures, hint="\n".join(hints))


def _failures(course: _Course) -> Iterator[Failure]:
    names = ", ".join(machine.name for machine in course.machines or ())
    for error in course.errors:
        if isinstance(error, PhaseError):
            yield from error.failures
        else:
            yield Failure(names, course.phase.name, str(error))
