"""`up`: look, judge, plan, act, verify. And the first half of it alone, for `plan` and `check`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Network

from provision import artifacts
from provision.apply import self_join
from provision.apply.lock import at_work, refuse_second
from provision.apply.phases import UP, Run, execute
from provision.apply.session import Session
from provision.apply.verify import judge
from provision.artifacts.model import ArtifactSet
from provision.desired.catalog import artifacts_of
from provision.inventory import Draft, complete
from provision.local import identities
from provision.machines import Cloud
from provision.model.cluster import Cluster, Ssh
from provision.model.errors import Finding, PreflightError
from provision.model.facts import Facts
from provision.model.located import Located
from provision.pki import age
from provision.pki.trust import Trust
from provision.plan import external_authority
from provision.plan.make import IMAGES, make_plan
from provision.plan.preflight import altered, preflight


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        changed: machine -> components (and `packages`, `artifacts`) that changed there.
        seconds: phase -> wall time.
    """

    changed: dict[str, tuple[str, ...]]
    seconds: dict[str, float]
    warnings: tuple[Finding, ...] = ()


def check(
    session: Session,
    names: Collection[str] | None = None,
    *,
    look: bool = True,
    alone: bool = False,
    deep: bool = False,
) -> tuple[Finding, ...]:
    """Look at the machines and judge whether they are fit. Touches nothing.

    Args:
        names: of the machines that count; None: all.
        look: False: the session has just looked.
        alone: refuse if somebody else works on the cluster; else that is a warning.
        deep: hash every binary; one that is not what was installed is an error.

    Returns:
        Warnings.

    Raises:
        RefusedError: somebody does.
        PreflightError: with all findings, when at least one is fatal.
    """
    # Of two machines among many, one is to reach the other only.
    reachability = names is None
    observed = (
        session.observe(names, reachability=reachability, deep=deep) if look else session.observed
    )
    if alone:
        refuse_second(session)
    trust = session.cache.trust()
    findings = preflight(session.cluster, observed, trust.fingerprint if trust else None)
    findings = [*session.draft.warnings, *findings, *(altered(observed) if deep else ())]
    if holder := at_work(session):
        findings.append(Finding("now", f"at work on this cluster: {holder}", fatal=False))
    if any(finding.fatal for finding in findings):
        raise PreflightError(
            f"{session.cluster.name}: the machines are not fit; nothing was touched", findings
        )
    return tuple(findings)


def prepare(
    session: Session,
    names: Collection[str] | None = None,
    *,
    keep: bool = True,
    look: bool = True,
) -> tuple[Run, tuple[Finding, ...]]:
    """Everything up to the plan. Touches no machine.

    Args:
        names: of the machines that count; None: all.
        keep: this is going to be carried out: nobody else is at work, and a new cluster's keys
            are made for good, not just to plan with.
        look: False: the session has just looked at the machines.

    Returns:
        The run, ready to be carried out, and warnings.

    Raises:
        PreflightError, TrustError, ArtifactError, RefusedError: see there.
    """
    warnings = check(session, names, look=look, alone=keep)
    trust = session.trust(keep=keep)
    # To plan a first installation, nobody has to wait for a compiler.
    make = keep or any(view.binaries for view in session.observed.values())
    run = _planned(session, trust, needed_artifacts(session, trust, make=make))
    return run, (
        *warnings,
        *external_authority.due(session.cluster, trust, session.observed, run.now),
    )


def look_again(run: Run) -> Run:
    """The same run, planned anew from what the machines are now.

    For who has just taken the lock: another operator may have changed them since the first look.

    Raises:
        PreflightError, TrustError, RefusedError: see `prepare`.
    """
    check(run.session)
    return _planned(run.session, run.session.trust(), run.artifacts)


def _planned(session: Session, trust: Trust, ready: ArtifactSet) -> Run:
    now = datetime.now(UTC)
    plan = make_plan(session.cluster, trust, session.observed, ready, now)
    external_authority.refuse_unsigned(session.cluster, trust, session.observed, plan, now)
    if not isinstance(session.source, Cloud) or not (arch := _group_arch(session)):
        return Run(session, trust, ready, plan, now)
    bundle = self_join.bundle(session.cluster, trust, _group_facts(session, arch), ready)
    if session.source.offered(session.draft) != bundle.sha256:
        plan = replace(plan, join=bundle.sha256)
    return Run(session, trust, ready, plan, now, bundle=bundle)


def _group_arch(session: Session) -> str:
    """Architecture of machines that join by themselves; empty: there are none."""
    source = session.source
    return source.group_arch(session.draft) if isinstance(source, Cloud) else ""


def _group_facts(session: Session, arch: str) -> Facts:
    """What will be true of a machine that nobody has seen: it is made from the same image."""
    cluster = session.cluster
    known = (session.observed[m.name].facts for m in (*cluster.workers, *cluster.masters))
    return replace(next(facts for facts in known if facts), arch=arch)


def needed_artifacts(session: Session, trust: Trust, *, make: bool = True) -> ArtifactSet:
    """What the cluster's machines need, made ready by the inventory's source.

    Args:
        make: False: only to plan with.
    """
    arches = {o.facts.arch for o in session.observed.values() if o.facts}
    if arch := _group_arch(session):
        arches.add(arch)
    return artifacts.prepare(
        session.cluster.artifacts,
        session.cluster.kubernetes,
        wanted(session.cluster, trust, arches),
        session.progress,
        make=make,
    )


def wanted(cluster: Cluster, trust: Trust, arches: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(artifact, arch) of all that a cluster needs on machines of these architectures."""
    names = artifacts_of(cluster, trust)
    return tuple((name, arch) for arch in sorted(arches) for name in (*names, IMAGES))


def settled(run: Run) -> bool:
    """Whether there is nothing to do, and nothing to wait for either.

    A run that was killed at its end has put everything in place, and nobody has seen it work.
    """
    there = {n: view for n, view in run.session.observed.items() if view.reachable}
    return run.plan.empty and not judge(run.session.cluster, there)


def up(run: Run) -> Report:
    """Carry the plan out.

    Raises:
        PhaseError: with every machine that failed in the phase that failed.
    """
    cluster = run.session.cluster
    # Beside a cache that the operator has sealed no key is left open unasked.
    if cluster.backup.enabled and not run.session.cache.sealed:
        identities.remember(age.identity(run.trust), cluster.name)
    execute(run, UP)
    changed = {
        name: (
            *(("packages",) if plan.packages else ()),
            *(("artifacts",) if plan.binaries or plan.images else ()),
            *plan.components,
            *(("removed",) if plan.remove else ()),
        )
        for name, plan in run.plan.machines.items()
    }
    return Report({k: v for k, v in changed.items() if v}, run.seconds)


def artifacts_for(draft: Draft, arches: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(artifact, arch) of all that a cluster of this inventory needs; its machines may not exist.

    The placeholders never reach a machine: names of artifacts depend on neither.
    """
    located = {
        host.name: Located(address, Ssh(hostname=str(address)))
        for host, address in zip(draft.hosts, IPv4Network("192.0.2.0/24").hosts(), strict=False)
    }
    cluster = complete(draft, located, None)
    return wanted(cluster, Trust.create(draft.name, datetime.now(UTC)), arches)
