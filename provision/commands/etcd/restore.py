"""Restore a cluster from a snapshot: on its own machines, or on new ones.

The cluster is stopped while data are replaced, and all members get the same data. A restore that is
killed leaves a marker on the machines: while it is there `up` refuses to start anything, and the
same command continues. Once all members have the data, they are not replaced again: a member that
has started since may have acknowledged new writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from provision.apply.fanout import fan_out
from provision.apply.phases import ETCD, UP, Phase, Run, Work, execute
from provision.apply.session import Session
from provision.apply.verify import verify_alone
from provision.commands import converge
from provision.commands.etcd.snapshot import members
from provision.commands.etcd.snapshot_file import Snapshot
from provision.commands.etcd.source import compressed, refuse_unreadable
from provision.desired import etcd_programs
from provision.desired.components import etcd
from provision.desired.etcd_programs import CONTROL_PLANE, Target
from provision.model import paths
from provision.model.cluster import Machine
from provision.model.errors import (
    ClusterctlError,
    PhaseError,
    PreflightError,
    RefusedError,
    UnreachableError,
)
from provision.model.look import Look, reasons
from provision.model.observed import Observed
from provision.pki.trust import Trust
from provision.plan.external_authority import refuse_unsigned
from provision.plan.make import make_plan
from provision.plan.preflight import preflight

TIMEOUT = 1800  # seconds, for the data of one member
# More revisions than a cluster makes after a snapshot, until it is restored.
BUMP = 1_000_000_000
ETCD_UNITS = (etcd.UNIT,)
INSTALLS = " installs"  # a marker's last word
AGAIN = (
    "the cluster is stopped until it is restored: run the same command again; it goes on where "
    "it stopped"
)


@dataclass(frozen=True)
class Outlook:
    """What a restore is going to do.

    Attributes:
        look: the machines as they were when this was judged.
        members: the machines that will have the restored data.
        left_out: machine -> why it does not take part.
        revision: of the cluster now; 0: no member answers.
        fresh: machines have to be installed too.
        brought: all members have the restored data already.
    """

    look: Look
    members: tuple[Machine, ...]
    left_out: Mapping[str, str]
    target: Target
    revision: int
    fresh: bool
    brought: bool = False

    def lost(self, snapshot: Snapshot) -> str:
        """What is going to be lost, as text for the operator."""
        if self.brought:
            return (
                "its data are on all members already and stay; the remaining steps are carried out"
            )
        manifest = snapshot.manifest
        since = f"everything written since {manifest.created:%Y-%m-%d %H:%M:%S} UTC"
        if self.revision:
            count = max(self.revision - manifest.revision, 0) % BUMP
            return f"{since} ({manifest.age} ago) is lost: {count} changes"
        return f"{since} ({manifest.age} ago) is lost"


def assess(session: Session, look: Look, snapshot: Snapshot) -> Outlook:
    """Find out what a restore would do. Touches nothing.

    Raises:
        UnreachableError: no machine with etcd answers.
        RefusedError: a machine has too little room, or the Secrets could not be decrypted.
    """
    there = look.answering(session.cluster.etcd_members)
    if not there:
        unreachable = look.unreachable(session.cluster.etcd_members)
        raise UnreachableError(f"no machine with etcd answers: {reasons(unreachable)}")
    if known := _known_trust(session, look):
        refuse_unreadable(session.cluster, known, snapshot)
    revision = max((m.revision for m in members(session)), default=0)
    saved, begun = snapshot.manifest.revision, _begun(look, snapshot.manifest.sha256)
    target = Target(snapshot.manifest.sha256, begun, tuple(sorted(m.name for m in there)))
    brought = begun > 0 and _brought(session, there, target)
    if not brought:
        if not begun:
            _refuse_narrow(session, there, snapshot)
        # Machines that do not answer now may have run with the data of an earlier restore.
        target = replace(target, bump=bump_for(saved, max(revision, saved + begun)))
    return Outlook(
        look=look,
        members=there,
        left_out=look.unreachable(),
        target=target,
        revision=revision,
        fresh=fresh(look, there),
        brought=brought,
    )


def fresh(look: Look, there: tuple[Machine, ...]) -> bool:
    """Whether machines have to be installed, or a restore that installs machines was interrupted."""
    return not (
        all(_installed(look[m.name], ETCD_UNITS) for m in there)
        and all(_installed(look[m.name], CONTROL_PLANE) for m in _masters(look))
    ) or any(view.restoring.endswith(INSTALLS) for view in look.values())


def _known_trust(session: Session, look: Look) -> Trust | None:
    """The keys that masters have, which stay; None when all masters are new."""
    return session.known_trust(look) if any(view.trust for view in look.values()) else None


def _refuse_narrow(session: Session, machines: tuple[Machine, ...], snapshot: Snapshot) -> None:
    said = session.engine.fetch(lambda _: etcd_programs.room(snapshot.manifest), machines)
    if narrow := [f"{name}: {why}" for name, s in said.items() if (why := s.output.strip())]:
        message = f"{snapshot.source} cannot be restored: {'; '.join(narrow)}"
        raise RefusedError(
            message, hint="free space on these machines, then run the same command again"
        )


def bump_for(saved: int, now: int) -> int:
    """By how much revisions must grow, so that no client sees a revision twice. Pure."""
    return max(now - saved, 0) + BUMP


def _begun(seen: Mapping[str, Observed], sha256: str) -> int:
    """The bump that a killed restore of the same snapshot chose; 0: there was no such restore."""
    markers = [view.restoring.split() for view in seen.values()]
    bumps = [marker[1] for marker in markers if len(marker) > 1 and marker[0] == sha256]
    return max((int(bump) for bump in bumps if bump.isdecimal()), default=0)


def _brought(session: Session, machines: tuple[Machine, ...], target: Target) -> bool:
    said = session.engine.fetch(lambda _: etcd_programs.brought(target), machines)
    for name, answer in said.items():
        if answer.error:  # if it did say yes, replacing its data would lose new writes
            raise UnreachableError(f"{name}: {answer.error}", hint="run the same command again")
    return all(answer.output.strip() == "yes" for answer in said.values())


def _installed(view: Observed, units: tuple[str, ...]) -> bool:
    return all(unit in view.units and view.units[unit].load == "loaded" for unit in units)


def carry_out(session: Session, snapshot: Snapshot, outlook: Outlook) -> float:
    """Carry out a restore.

    Returns:
        Wall seconds until every apiserver was ready again.

    Raises:
        PreflightError, ArtifactError, RefusedError: nothing was touched; see `planned`.
        PhaseError: with every machine that failed; the same command continues.
    """
    began = time.monotonic()
    run = None
    if outlook.fresh:
        known = _known_trust(session, outlook.look)
        run = planned(session, known or snapshot.trust, outlook)
        outlook = replace(outlook, look=run.look)
        if not known:
            session.cache.keep(snapshot.trust)
    if not outlook.brought:
        stop(session, outlook)
    if run:
        execute(run, _phases(snapshot, outlook))
        _finish(session, outlook)
        return time.monotonic() - began
    if not outlook.brought:
        names = tuple(m.name for m in outlook.members)
        with session.progress.phase("data", "the snapshot, to every member", names):
            _bring(session, snapshot, outlook)
    cluster = session.cluster
    _each(
        session,
        "etcd",
        "the members",
        outlook.members,
        lambda m: etcd_programs.start_member(cluster, m),
    )
    _each(
        session,
        "control plane",
        "apiservers and controllers",
        _masters(outlook.look),
        lambda _: etcd_programs.start_control_plane(),
    )
    _finish(session, outlook)
    seconds = time.monotonic() - began
    if not outlook.left_out:
        verify_alone(session)
    return seconds


def stop(session: Session, outlook: Outlook) -> None:
    """Stop what uses etcd, then etcd, on every machine that answers."""
    marker = f"{outlook.target.sha256} {outlook.target.bump}{INSTALLS if outlook.fresh else ''}"
    for name, summary, machines, units in (
        ("stop", "apiservers and controllers", _masters(outlook.look), CONTROL_PLANE),
        ("stop etcd", "the members", outlook.members, ETCD_UNITS),
    ):
        _each(
            session,
            name,
            summary,
            machines,
            lambda m, units=units: etcd_programs.stop(marker, _present(outlook.look, m, units)),  # type: ignore[misc]
        )


def _present(look: Look, machine: Machine, units: tuple[str, ...]) -> tuple[str, ...]:
    seen = look[machine.name].units
    return tuple(unit for unit in units if unit in seen and seen[unit].load == "loaded")


def _masters(look: Look) -> tuple[Machine, ...]:
    return look.answering(look.cluster.masters)


def _bring(session: Session, snapshot: Snapshot, outlook: Outlook) -> None:
    """Restore the data on all members at once."""

    def bring(machine: Machine) -> tuple[int, str, str]:
        program = etcd_programs.restore(
            session.cluster, machine, outlook.members, outlook.target, snapshot.manifest
        )
        return session.engine.stream(
            machine, program, compressed(snapshot.database), timeout=TIMEOUT
        )

    _together(session, "data", outlook.members, bring)


def _finish(session: Session, outlook: Outlook) -> None:
    """Remove the markers; when all of them are gone, also the old data that were kept."""
    machines = dict.fromkeys((*_masters(outlook.look), *outlook.members))
    _each(
        session,
        "release",
        "remove the markers of the restore",
        tuple(machines),
        lambda _: etcd_programs.release(),
        hint="the cluster runs, only this step is left: run the same command again",
    )
    try:
        _each(
            session,
            "clean",
            "remove the old data",
            outlook.members,
            lambda _: etcd_programs.clean(),
        )
    except PhaseError as error:
        for failure in error.failures:
            session.progress.note(
                f"{failure.machine}: its old data are still in {paths.ETCD_DATA}, and take up space "
                f"until the next restore: {failure.cause}"
            )


def _each(
    session: Session,
    name: str,
    summary: str,
    machines: tuple[Machine, ...],
    program: Callable[[Machine], str],
    *,
    hint: str = AGAIN,
) -> None:
    """Run a program on these machines at once, as a phase."""
    with session.progress.phase(name, summary, tuple(m.name for m in machines)):
        _together(session, name, machines, lambda m: session.engine.shell(m, program(m)), hint)


def _together(
    session: Session,
    phase: str,
    machines: tuple[Machine, ...],
    job: Callable[[Machine], tuple[int, str, str]],
    hint: str = AGAIN,
) -> None:
    def run(machine: Machine) -> tuple[int, str, str]:
        try:
            code, out, error = job(machine)
        except ClusterctlError as failure:
            code, out, error = 1, "", failure.message
        session.progress.done(machine.name, failed=code != 0)
        return code, out, error

    fan_out(phase, machines, run, hint=hint)


# Machines that have to be installed: the phases of `up`, with the data before etcd.


def planned(session: Session, trust: Trust, outlook: Outlook) -> Run:
    """Look at the machines, and plan to install what they lack. Touches nothing.

    All reasons to refuse are found here, before anything is stopped.

    Raises:
        PreflightError, ArtifactError, RefusedError: see there.
    """
    look = session.observe()
    names = {m.name for m in outlook.members}
    back = [m.name for m in session.cluster.etcd_members if m.name not in names]
    if back := [name for name in back if look[name].reachable]:
        message = f"{', '.join(back)} did not answer a moment ago and answers now"
        raise RefusedError(message, hint="run the same command again: then it takes part")
    # A new cluster needs every machine. A restore that began without a machine may go on without it.
    begun = {
        name: replace(view, etcd_formed=view.etcd_formed or bool(view.restoring))
        for name, view in look.items()
    }
    findings = preflight(session.cluster, begun, trust.fingerprint)
    if any(f.fatal for f in findings):
        raise PreflightError(f"{session.cluster.name}: the machines are not fit", findings)
    artifacts = converge.needed_artifacts(session, look, trust)
    now = datetime.now(UTC)
    views = {
        name: _expected(view, member=name in names, stopped=not outlook.brought)
        for name, view in look.items()
    }
    plan = make_plan(session.cluster, trust, views, artifacts, now)
    refuse_unsigned(session.cluster, trust, views, plan, now)
    # The cluster is stopped: all machines may change at once.
    plan = replace(plan, running=False)
    return Run(session, Look(session.cluster, views), trust, artifacts, plan, now)


def _expected(view: Observed, *, member: bool, stopped: bool) -> Observed:
    """A machine as it is going to be when its member has the restored data."""
    units = {
        name: replace(unit, active="inactive", sub="dead")
        if stopped and name in (*CONTROL_PLANE, *ETCD_UNITS)
        else unit
        for name, unit in view.units.items()
    }
    has = member or view.etcd_data
    return replace(
        view, units=units, etcd=None, api=None, etcd_data=has, etcd_formed=member, restoring=""
    )


def _phases(snapshot: Snapshot, outlook: Outlook) -> Iterator[Phase]:
    def data(work: Work) -> None:
        _bring(work.session, snapshot, outlook)

    names = tuple(m.name for m in outlook.members)
    for phase in UP:
        if phase is ETCD and not outlook.brought:
            yield Phase("data", "the snapshot, to every member", lambda _: names, data)
        yield phase
