"""Replace an authority or a key of a running cluster, stage by stage, without an outage.

A stage is a Trust (`provision.pki.rotation`). The plan of `up` and the phases of `certs renew` bring
every machine to it. The next stage begins when a fresh look finds nothing left to do on any machine.
The cache gets a stage before any machine, and each master has all that the next run needs: so the
same command finishes a run that was stopped, also on another computer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from provision.apply.checked import trimmed
from provision.apply.phases import RENEW, Run, execute
from provision.apply.session import Session
from provision.commands.certs import renewal
from provision.desired.components import etcd
from provision.desired.components.control_plane import KUBECTL
from provision.desired.components.group import LABEL
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.errors import Failure, PhaseError, RefusedError, UnreachableError
from provision.model.look import Look, reasons
from provision.model.observed import ApiView
from provision.pki.rotation import advance, begin, reached
from provision.pki.trust import Part, Stage, Trust
from provision.plan.make import make_plan
from provision.plan.model import Renewal

# The kubelet requests tokens for pods with a life of an hour and seven seconds (its own constant).
# Other tokens live as long as their client requested.
TOKEN_LIFE = timedelta(seconds=3607)
# Seconds, for all Secrets at once.
_SECRETS_TIMEOUT = 600
MEANING = {
    Stage.INTRODUCED: "the new one exists and is accepted beside the old one",
    Stage.ACTIVE: "the new one is used, the old one is still accepted",
    Stage.WITHDRAWN: "the old one is no longer accepted",
}
# These processes read their certificates again only once a minute.
_SLOW = frozenset({"kube-apiserver", "controller-manager", "cloud-controller-manager", "scheduler"})


@dataclass(frozen=True)
class Report:
    """What was done.

    Attributes:
        parts: the parts that were replaced, or are being replaced.
        waiting: parts whose old key is still accepted and is withdrawn later.
        seconds: stage -> wall time.
        took: wall seconds from the command's start until the cluster was changed.
    """

    parts: tuple[Part, ...]
    waiting: tuple[Part, ...]
    seconds: dict[str, float]
    took: float


def prepare(session: Session, parts: Iterable[Part], *, distrust: bool = False) -> Trust:
    """The Trust of the next stage; touches no machine.

    Raises:
        RefusedError: the cluster differs from its inventory; or there is nothing to distrust, or
            not yet.
        UnreachableError: a machine does not answer.
    """
    look, trust = renewal.look_at_existing(session)
    wanted = tuple(dict.fromkeys(parts))
    _all_answer(look, trust)
    if Part.KUBERNETES in wanted:
        refuse_cutting_off(session.cluster, look.api())
    now = datetime.now(UTC)
    under_way = tuple(p for p in wanted if trust.rotation(p))
    if not distrust:
        if under_way == wanted:
            return trust
        _refuse_some(session.cluster, trust, under_way)
    # A machine that has not reached the stage may still sign with the old key.
    if not distrust or any(_waits(trust, part) for part in wanted):
        installed = renewal.as_installed(look, trust)
        plan = make_plan(session.cluster, trust, look, installed, now)
        renewal.refuse_unfinished(session, plan)
    if distrust:
        return _withdrawn(trust, wanted, now)
    return begin(trust, wanted, session.cluster.name, now)


def _refuse_some(cluster: Cluster, trust: Trust, under_way: tuple[Part, ...]) -> None:
    if not under_way:
        return
    ready = all(_waits(trust, r.part) and r.since for p in under_way if (r := trust.rotation(p)))
    named = (word for part in under_way for word in ("--ca", part))
    distrust = ("--distrust",) if ready else ()
    finish = clusterctl("certs", "rotate-ca", cluster.inventory, *named, *distrust)
    message = (
        f"of these, only {', '.join(under_way)} is being replaced already; nothing was changed"
    )
    raise RefusedError(message, hint=f"finish that first: {finish}; then this again")


def refuse_cutting_off(cluster: Cluster, api: ApiView | None) -> None:
    """Check that no worker would keep the old authority. Pure.

    Raises:
        RefusedError: workers of an Auto Scaling group would: clusterctl does not change them.
    """
    there = [node.name for node in api.nodes if LABEL in node.labels] if api else []
    if there:
        raise RefusedError(
            f"workers of the Auto Scaling group keep the authority that they started with and would "
            f"lose the cluster: {', '.join(there)}",
            hint=f"{clusterctl('ec2', 'scale', cluster.inventory, 0)}, then this again, then "
            f"{clusterctl('ec2', 'scale', cluster.inventory, len(there))}: it makes new workers with "
            "the new authority",
        )


def carry_out(
    session: Session, trust: Trust, wanted: Iterable[Part], *, distrust: bool = False
) -> Report:
    """Carry out this stage and all later ones.

    A service-account key stops before the old one is withdrawn, unless `distrust` is true.

    Raises:
        PhaseError, UnreachableError: the stage is not finished; the cluster works in it.
    """
    parts = tuple(part for part in wanted if trust.rotation(part))
    known = session.cache.trust()
    resumed = known is not None and known.digest == trust.digest
    seconds: dict[str, float] = {}
    while True:
        session.cache.keep(trust)
        stage = _describe(trust, parts)
        session.progress.note(f"stage: {stage}")
        seconds[stage] = _reach(session, trust, parts, again=resumed)
        moving = tuple(
            r.part
            for r in trust.rotations
            if r.part in parts and (distrust or not _waits(trust, r.part))
        )
        if not moving:
            break
        resumed = False
        trust = advance(trust, moving, datetime.now(UTC))
    waiting = tuple(p for p in parts if trust.rotation(p))
    if waiting:
        # No machine signs with the old key any more: what it signed expires from now on.
        trust = reached(trust, waiting, datetime.now(UTC))
        session.cache.keep(trust)
        seconds[stage] += _reach(session, trust, parts, again=False)
    return Report(parts, waiting, seconds, session.took)


def _waits(trust: Trust, part: Part) -> bool:
    """Whether the old key must still be accepted for some time."""
    rotation = trust.rotation(part)
    return part is Part.SERVICE_ACCOUNT and rotation is not None and rotation.stage is Stage.ACTIVE


def _withdrawn(trust: Trust, parts: tuple[Part, ...], now: datetime) -> Trust:
    for part in parts:
        rotation = trust.rotation(part)
        if rotation is not None and rotation.stage is Stage.WITHDRAWN:
            continue
        if rotation is None or not _waits(trust, part):
            message = f"{part}: no old key waits to be withdrawn"
            raise RefusedError(message, hint="--distrust is for service-account, an hour later")
        if rotation.since is None:
            message = f"{part}: it is not known yet whether every machine signs with the new key"
            raise RefusedError(
                message, hint="run the same without --distrust; an hour later with it"
            )
        left = rotation.since + TOKEN_LIFE - now
        if left > timedelta(0):
            message = (
                f"{part}: pods may still have tokens signed by the old key, for "
                f"{left // timedelta(minutes=1) + 1} minutes"
            )
            raise RefusedError(message, hint="run the same command after that")
    return advance(trust, (p for p in parts if _waits(trust, p)), now)


def _reach(session: Session, trust: Trust, parts: tuple[Part, ...], *, again: bool) -> float:
    """Bring every machine to this Trust; returns wall time in seconds."""
    began = datetime.now(UTC)
    look = session.observe()
    _all_answer(look, trust)
    installed = renewal.as_installed(look, trust)
    # After a run that was stopped it is unknown whether these have read their new certificates.
    anew = Renewal(_SLOW, began) if again and _any(trust, parts, Stage.ACTIVE) else None
    plan = make_plan(session.cluster, trust, look, installed, began, anew)
    if not plan.empty:
        execute(Run(session, look, trust, installed, plan, began), RENEW)
        look = session.observe()
        _all_answer(look, trust)
        left = make_plan(session.cluster, trust, look, installed, datetime.now(UTC))
        if unready := [name for name, machine in left.machines.items() if not machine.empty]:
            failures = [
                Failure(name, "reach the stage", "something is left to change") for name in unready
            ]
            raise PhaseError("rotation", failures, hint=_again(trust))
    if Part.ENCRYPTION in parts and _any(trust, (Part.ENCRYPTION,), Stage.ACTIVE):
        _rewrite_secrets(session, look, trust)
    return (datetime.now(UTC) - began).total_seconds()


def _any(trust: Trust, parts: Iterable[Part], stage: Stage) -> bool:
    return any(r.stage is stage for r in trust.rotations if r.part in parts)


def _all_answer(look: Look, trust: Trust) -> None:
    unreachable = look.unreachable()
    if not unreachable:
        return
    stages = _describe(trust, [r.part for r in trust.rotations])
    message = f"a machine does not answer, so the stage is not finished. {reasons(unreachable)}. Now: {stages}"
    raise UnreachableError(
        message,
        hint="the cluster works as it is; start the machine, or remove it: "
        f"{clusterctl('node', 'remove', look.cluster.inventory, next(iter(unreachable)))}; "
        "then run the same command again",
    )


def _describe(trust: Trust, parts: Iterable[Part]) -> str:
    stages: dict[str, list[str]] = {}
    for part in parts:
        rotation = trust.rotation(part)
        meaning = MEANING[rotation.stage] if rotation else "the old one is removed"
        stages.setdefault(meaning, []).append(part)
    return (
        "; ".join(f"{', '.join(names)}: {m}" for m, names in stages.items())
        or "nothing is being replaced"
    )


def _again(trust: Trust) -> str:
    return f"run the same command again ({_describe(trust, [r.part for r in trust.rotations])})"


def _rewrite_secrets(session: Session, look: Look, trust: Trust) -> None:
    """Encrypt every Secret with the new key, and check in etcd that no other key is in use."""
    rotation = trust.rotation(Part.ENCRYPTION)
    assert rotation is not None  # noqa: S101 - the caller has seen it
    old = rotation.other.public.decode()
    leader = look.leader()
    with session.progress.phase("secrets", "encrypted with the new key", (leader.name,)):
        rewrite = _pipe(
            f"{KUBECTL} get secrets -A -o json", f"{KUBECTL} replace -f - 2>&1 >/dev/null"
        )
        code, said, error = session.engine.shell(
            leader, rewrite, secret_output=True, timeout=_SECRETS_TIMEOUT
        )
        if code != 0 and not _changed_meanwhile(said):
            _refuse_to_forget(trust, leader, "rewrite", trimmed(f"{said}{error}"))
        member = session.cluster.etcd_members[0]
        ctl = etcd.etcdctl(session.cluster, member, timeout=_SECRETS_TIMEOUT)
        count = _pipe(
            f"{ctl} get /registry/secrets/ --prefix --print-value-only",
            f"grep -a -o 'k8s:enc:secretbox:v1:{old}:' | wc -l",
        )
        code, out, error = session.engine.shell(member, count, timeout=_SECRETS_TIMEOUT)
        if code != 0:
            cause = f"whether Secrets are still encrypted with {old} could not be checked: "
            _refuse_to_forget(trust, member, "count", cause + trimmed(error))
        if out.strip() != "0":
            cause = f"{out.strip()} Secrets are still encrypted with {old}: {trimmed(said)}"
            _refuse_to_forget(trust, leader, "rewrite", cause)
        session.progress.done(leader.name)


def _pipe(first: str, then: str) -> str:
    """A pipe that also fails if its first command fails; a plain one has the status of the last."""
    return (
        f"{{ code=$({{ {{ {first}; echo $? >&3; }} | {{ {then}; }} >&4; }} 3>&1) && "
        '[ "$code" = 0 ]; } 4>&1'
    )


def _changed_meanwhile(said: str) -> bool:
    """Whether all errors are conflicts: a Secret that a client changed meanwhile is encrypted anew too."""
    lines = said.strip().splitlines()
    return bool(lines) and all("(Conflict)" in x or "(NotFound)" in x for x in lines)


def _refuse_to_forget(trust: Trust, machine: Machine, step: str, cause: str) -> NoReturn:
    raise PhaseError("secrets", [Failure(machine.name, step, cause)], hint=_again(trust))
