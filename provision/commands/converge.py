"""Converge a cluster: look, judge, plan, carry out, verify. `plan` and `check` are its first half."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Network

from provision import artifacts
from provision.apply import self_join
from provision.apply.lock import at_work, refuse_second
from provision.apply.phases import UP, Run, execute, overlap
from provision.apply.session import Session
from provision.apply.unfinished import marked
from provision.apply.verify import judge
from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet
from provision.desired.catalog import artifacts_of
from provision.inventory import Draft, complete
from provision.local import identities
from provision.machines import Cloud
from provision.model.cluster import Cluster, Ssh
from provision.model.errors import Finding, PreflightError
from provision.model.facts import Facts
from provision.model.located import Located
from provision.model.look import Look
from provision.model.observed import Observed, unfinished
from provision.pki import age
from provision.pki.trust import Trust
from provision.plan import external_authority
from provision.plan.addons import judge_addons
from provision.plan.make import make_plan
from provision.plan.preflight import altered, preflight
from provision.plan.refuse import refuse_changed_networks, refuse_moved_members
from provision.plan.user_images import image_problems


@dataclass(frozen=True)
class Report:
    """What a run changed.

    Attributes:
        changed: machine -> components (and `packages`, `artifacts`) that changed there.
        seconds: phase -> wall time.
        took: wall seconds from the command's start until the cluster was changed.
    """

    changed: dict[str, tuple[str, ...]]
    seconds: dict[str, float]
    took: float
    warnings: tuple[Finding, ...] = ()


def look_at_all(session: Session, *, deep: bool = False) -> Look:
    """Look at all machines; new ones also say which others they reach.

    Args:
        deep: hash every binary.
    """
    return session.observe(reachability=True, deep=deep)


def check(
    session: Session, look: Look, *, alone: bool = False, deep: bool = False
) -> tuple[Finding, ...]:
    """Judge whether the machines are fit. Touches nothing.

    Args:
        alone: refuse if another operator works on the cluster; else that is a warning.
        deep: the look hashed every binary; one that is not what was installed is an error.

    Returns:
        Warnings.

    Raises:
        RefusedError: another operator works on the cluster, or the inventory changes what the
            cluster keeps for life.
        PreflightError: with all findings, when at least one is fatal.
    """
    if alone:
        refuse_second(session, look)
    refuse_changed_networks(session.cluster, look)
    refuse_moved_members(session.cluster, look)
    trust = session.cache.trust()
    findings = preflight(session.cluster, look, trust.fingerprint if trust else None)
    findings = [
        *session.draft.warnings,
        *findings,
        *(altered(session.cluster.inventory, look) if deep else ()),
    ]
    if holder := at_work(session, look):
        findings.append(
            Finding("now", f"another operator works on this cluster: {holder}", fatal=False)
        )
    if any(finding.fatal for finding in findings):
        raise PreflightError(_unfit(session.cluster), findings)
    return tuple(findings)


def prepare(
    session: Session, look: Look | None = None, *, keep: bool = True
) -> tuple[Run, tuple[Finding, ...]]:
    """Everything up to the plan. Touches no machine.

    Args:
        look: plan from this look; None: look at all machines.
        keep: the plan is going to be carried out: refuse if another operator is at work, and keep
            the keys of a new cluster. Else keys are made only to plan with.

    Returns:
        The run, ready to be carried out, and warnings.

    Raises:
        PreflightError, TrustError, ArtifactError, RefusedError: see there.
    """
    look = look or look_at_all(session)
    warnings = check(session, look, alone=keep)
    trust = session.trust(look, keep=keep)
    # The plan of a first installation does not wait for a compiler.
    make = keep or any(view.binaries for view in look.values())
    ready = needed_artifacts(session, look, trust, make=make)
    _check_downloads(session, look, ready)
    run = _planned(session, look, trust, ready)
    return run, (*warnings, *external_authority.due(session.cluster, trust, look, run.now))


def _check_downloads(session: Session, look: Look, ready: ArtifactSet) -> None:
    """Check that new machines reach the publishers, if the source `auto` has chosen the publishers.

    With other sources, the first look has checked this. With `auto` it cannot: if no publisher
    answers, clusterctl compiles everything, and machines need no server.

    Raises:
        PreflightError: a server does not answer a machine.
    """
    new = [name for name, view in look.items() if view.facts and not view.record]
    if session.cluster.artifacts.source != "auto" or ready.source != "official" or not new:
        return
    cached = session.cache.trust()
    asked = {
        name: _with_downloads(look[name], view)
        for name, view in session.observe(new, published=True).items()
    }
    found = preflight(session.cluster, {**look, **asked}, cached.fingerprint if cached else None)
    if any(finding.fatal for finding in found):
        raise PreflightError(_unfit(session.cluster), found)


def _with_downloads(seen: Observed, asked: Observed) -> Observed:
    """Add the answers of the servers to what the first look saw; it asked for all the rest."""
    if seen.host is None or asked.host is None:
        return asked
    return replace(seen, host=replace(seen.host, downloads=asked.host.downloads))


def _unfit(cluster: Cluster) -> str:
    return f"{cluster.name}: the machines are not fit; nothing was touched"


def look_again(run: Run) -> Run:
    """Look at the machines again, and plan the same run anew.

    Called after the lock was taken: another operator may have changed machines since the first look.

    Raises:
        PreflightError, TrustError, RefusedError: see `prepare`.
    """
    look = look_at_all(run.session)
    check(run.session, look)
    return _planned(run.session, look, run.session.trust(look), run.artifacts)


def _planned(session: Session, look: Look, trust: Trust, ready: ArtifactSet) -> Run:
    now = datetime.now(UTC)
    plan = make_plan(session.cluster, trust, look, ready, now)
    external_authority.refuse_unsigned(session.cluster, trust, look, plan, now)
    if not isinstance(session.source, Cloud) or not (arch := _group_arch(session)):
        return Run(session, look, trust, ready, plan, now)
    bundle = self_join.bundle(session.cluster, trust, _group_facts(look, arch), ready)
    if session.source.offered(session.draft) != bundle.sha256:
        plan = replace(plan, join=bundle.sha256)
    return Run(session, look, trust, ready, plan, now, bundle=bundle)


def _group_arch(session: Session) -> str:
    """The architecture of machines that join by themselves; empty: there are none."""
    source = session.source
    return source.group_arch(session.draft) if isinstance(source, Cloud) else ""


def _group_facts(look: Look, arch: str) -> Facts:
    """The facts of a machine that does not exist yet: it is made from the same image as these."""
    known = (look[m.name].facts for m in (*look.cluster.workers, *look.cluster.masters))
    return replace(next(facts for facts in known if facts), arch=arch)


def needed_artifacts(
    session: Session, look: Look, trust: Trust, *, make: bool = True
) -> ArtifactSet:
    """Prepare the artifacts that the cluster's machines need, from the inventory's artifact source.

    Machines that run on this computer share its network link. So this computer downloads each file
    once, keeps it, and sends it to them. Other machines download by themselves.

    Args:
        make: False: only to plan with; nothing is fetched or built.
    """
    arches = {o.facts.arch for o in look.values() if o.facts}
    if arch := _group_arch(session):
        arches.add(arch)
    ready = artifacts.prepare(
        session.cluster.artifacts,
        session.cluster.kubernetes,
        wanted(session.cluster, trust, arches),
        session.progress,
        make=make,
        agree=session.install,
        installed=frozenset(b.pin for view in look.values() for b in view.binaries.values()),
    )
    here = make and session.cluster.source.is_here
    return artifacts.fetch(ready, session.progress) if here else ready


def wanted(cluster: Cluster, trust: Trust, arches: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(artifact, arch) of all artifacts that a cluster needs on machines of these architectures."""
    names = artifacts_of(cluster, trust)
    return tuple((name, arch) for arch in sorted(arches) for name in (*names, IMAGES))


def settled(run: Run) -> bool:
    """Whether nothing has to be changed, and nothing has to be verified."""
    return run.plan.empty and not problems(run)


def problems(run: Run) -> tuple[str, ...]:
    """Why `up` verifies the cluster even if it has nothing to change.

    A run that failed, or was killed, may have changed everything, and verified nothing.
    """
    there = {name: view for name, view in run.look.items() if view.reachable}
    begun = unfinished(there)
    failures = judge(run.session.cluster, there) + judge_addons(run.session.cluster, run.look)
    return (
        *((f"a command that began {begun} did not finish",) if begun else ()),
        *(f"{f.machine}: {f.step}: {f.cause}" for f in failures),
        *image_problems(run.session.cluster, there),
    )


def up(run: Run) -> Report:
    """Carry out the plan of a run.

    Raises:
        PhaseError: with every machine that failed in the phase that failed.
    """
    cluster = run.session.cluster
    # An operator who encrypts the cache wants no key on this computer in plain text.
    if cluster.backup.enabled and not run.session.cache.sealed:
        identities.remember(age.identity(run.trust), cluster.name)
    # A cluster that runs is changed in strict order, so that it goes on running.
    carry_out = execute if run.plan.running else overlap
    with marked(run):
        carry_out(run, UP)
    changed = {
        name: (
            *(("packages",) if plan.packages else ()),
            *(("artifacts",) if plan.binaries or plan.images or plan.user_images else ()),
            *plan.components,
            *(("removed",) if plan.remove else ()),
        )
        for name, plan in run.plan.machines.items()
    }
    return Report({k: v for k, v in changed.items() if v}, run.seconds, run.session.took)


def artifacts_for(draft: Draft, arches: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(artifact, arch) of all artifacts that this inventory needs; its machines need not exist.

    Addresses and keys are placeholders: the names of artifacts depend on neither.
    """
    located = {
        host.name: Located(address, Ssh(hostname=str(address)))
        for host, address in zip(draft.hosts, IPv4Network("192.0.2.0/24").hosts(), strict=False)
    }
    cluster = complete(draft, located, None)
    return wanted(cluster, Trust.create(draft.name, datetime.now(UTC)), arches)
