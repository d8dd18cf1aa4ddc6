"""An authority or a key of a running cluster replaced, stage by stage, while everything works.

A stage is a Trust (`provision.pki.rotation`); bringing every machine to it is the plan of `up` and
the way of `certs renew`. The next stage begins when a fresh look finds nothing left to do, on any
machine. The cache has a stage before any machine has; each master has what it needs to go on: so a
run that was stopped is finished by running it again, also on another computer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from provision.apply.phases import RENEW, Run, execute
from provision.apply.session import Session
from provision.commands.certs import renewal
from provision.desired.components import etcd
from provision.desired.components.control_plane import KUBECTL
from provision.desired.components.group import LABEL
from provision.model.cluster import Cluster, Machine
from provision.model.errors import Failure, PhaseError, RefusedError, UnreachableError
from provision.model.look import Look, reasons
from provision.model.observed import ApiView
from provision.pki.rotation import advance, begin, reached
from provision.pki.trust import Part, Stage, Trust
from provision.plan.make import make_plan
from provision.plan.model import Renewal

# Of tokens that pods get, kubelet asks for an hour and seven seconds (its own constant); others
# live for as long as whoever asked for them said.
TOKEN_LIFE = timedelta(seconds=3607)
# All of them, at once: seconds.
_SECRETS_TIMEOUT = 600
MEANING = {
    Stage.INTRODUCED: "the new one is made, and accepted beside the old one",
    Stage.ACTIVE: "the new one is used, the old one still accepted",
    Stage.WITHDRAWN: "the old one is accepted no more",
}
# What these hold is read anew within a minute, if nothing else happens.
_SLOW = frozenset({"kube-apiserver", "controller-manager", "cloud-controller-manager", "scheduler"})


@dataclass(frozen=True)
class Report:
    """What was done.

    Attributes:
        parts: what was replaced, or is being.
        waiting: those whose old one is still accepted, to be withdrawn later.
        seconds: stage -> wall time.
    """

    parts: tuple[Part, ...]
    waiting: tuple[Part, ...]
    seconds: dict[str, float]


def prepare(session: Session, parts: Iterable[Part], *, distrust: bool = False) -> Trust:
    """The Trust of the stage to be carried out now; touches no machine.

    Raises:
        RefusedError: the cluster is not as its inventory says; or there is nothing to distrust,
            or not yet.
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
    # Who has not come so far may still be signing with the old one.
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
    finish = " ".join(
        (
            f"clusterctl certs rotate-ca {cluster.inventory}",
            *(f"--ca {part}" for part in under_way),
            *(("--distrust",) if ready else ()),
        )
    )
    message = f"of these, only {', '.join(under_way)} is being replaced already: nothing was begun"
    raise RefusedError(message, hint=f"finish that: {finish}; then this again")


def refuse_cutting_off(cluster: Cluster, api: ApiView | None) -> None:
    """Check that nobody keeps the old authority. Pure.

    Raises:
        RefusedError: workers of an Auto Scaling group do: nobody changes what they were given.
    """
    there = [node.name for node in api.nodes if LABEL in node.labels] if api else []
    if there:
        raise RefusedError(
            f"workers of the Auto Scaling group would be cut off, they keep the authority that they "
            f"started with: {', '.join(there)}",
            hint=f"clusterctl ec2 scale {cluster.inventory} 0, this again, and then `up`, which "
            "brings them back with the new one",
        )


def carry_out(
    session: Session, trust: Trust, wanted: Iterable[Part], *, distrust: bool = False
) -> Report:
    """From this stage to the last, of those that are being replaced.

    Service-account keys stop before the old one is withdrawn, unless `distrust` says so.

    Raises:
        PhaseError, UnreachableError: the stage is not passed; everything goes on working in it.
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
        # Nobody signs with the old one any more: from now on what it has signed runs out.
        trust = reached(trust, waiting, datetime.now(UTC))
        session.cache.keep(trust)
        seconds[stage] += _reach(session, trust, parts, again=False)
    return Report(parts, waiting, seconds)


def _waits(trust: Trust, part: Part) -> bool:
    """Whether the old one has to be accepted for some time yet."""
    rotation = trust.rotation(part)
    return part is Part.SERVICE_ACCOUNT and rotation is not None and rotation.stage is Stage.ACTIVE


def _withdrawn(trust: Trust, parts: tuple[Part, ...], now: datetime) -> Trust:
    for part in parts:
        rotation = trust.rotation(part)
        if rotation is not None and rotation.stage is Stage.WITHDRAWN:
            continue
        if rotation is None or not _waits(trust, part):
            message = f"{part}: there is no old one whose withdrawal waits for anything"
            raise RefusedError(message, hint="--distrust is for service-account, an hour later")
        if rotation.since is None:
            message = f"{part}: nobody has seen yet that every machine signs with the new key"
            raise RefusedError(message, hint="the same without --distrust; with it an hour later")
        left = rotation.since + TOKEN_LIFE - now
        if left > timedelta(0):
            message = (
                f"{part}: pods may still have tokens signed by the old key, for "
                f"{left // timedelta(minutes=1) + 1} minutes"
            )
            raise RefusedError(message, hint="the same command, after that")
    return advance(trust, (p for p in parts if _waits(trust, p)), now)


def _reach(session: Session, trust: Trust, parts: tuple[Part, ...], *, again: bool) -> float:
    """Bring every machine to this Trust; returns wall time in seconds."""
    began = datetime.now(UTC)
    look = session.observe()
    _all_answer(look, trust)
    installed = renewal.as_installed(look, trust)
    # Of a run that was stopped nobody knows whether they have read their new certificates.
    anew = Renewal(_SLOW, began) if again and _any(trust, parts, Stage.ACTIVE) else None
    plan = make_plan(session.cluster, trust, look, installed, began, anew)
    if not plan.empty:
        execute(Run(session, look, trust, installed, plan, began), RENEW)
        look = session.observe()
        _all_answer(look, trust)
        left = make_plan(session.cluster, trust, look, installed, datetime.now(UTC))
        if unready := [name for name, machine in left.machines.items() if not machine.empty]:
            failures = [Failure(name, "reach the stage", "has something left") for name in unready]
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
    message = (
        f"the stage is not passed, a machine does not answer. {reasons(unreachable)}. Now: {stages}"
    )
    raise UnreachableError(
        message,
        hint="everything goes on working as it is; when the machine is back, or taken out with "
        "`clusterctl node remove`, run the same command again",
    )


def _describe(trust: Trust, parts: Iterable[Part]) -> str:
    stages: dict[str, list[str]] = {}
    for part in parts:
        rotation = trust.rotation(part)
        meaning = MEANING[rotation.stage] if rotation else "the old one is forgotten"
        stages.setdefault(meaning, []).append(part)
    return "; ".join(f"{', '.join(names)}: {m}" for m, names in stages.items()) or "nothing begun"


def _again(trust: Trust) -> str:
    return f"run the same command again ({_describe(trust, [r.part for r in trust.rotations])})"


def _rewrite_secrets(session: Session, look: Look, trust: Trust) -> None:
    """Have every Secret encrypted with the key that is used now, and look into etcd for others."""
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
            _refuse_to_forget(trust, leader, "rewrite", f"{said}{error}".strip()[-1000:])
        member = session.cluster.etcd_members[0]
        ctl = etcd.etcdctl(session.cluster, member, timeout=_SECRETS_TIMEOUT)
        count = _pipe(
            f"{ctl} get /registry/secrets/ --prefix --print-value-only",
            f"grep -a -o 'k8s:enc:secretbox:v1:{old}:' | wc -l",
        )
        code, out, error = session.engine.shell(member, count, timeout=_SECRETS_TIMEOUT)
        if code != 0:
            cause = f"whether Secrets are still encrypted with {old} could not be seen: "
            _refuse_to_forget(trust, member, "count", cause + error.strip()[-1000:])
        if out.strip() != "0":
            cause = f"{out.strip()} Secrets are still encrypted with {old}: {said.strip()[-1000:]}"
            _refuse_to_forget(trust, leader, "rewrite", cause)
        session.progress.done(leader.name)


def _pipe(first: str, then: str) -> str:
    """A pipe that fails if its beginning does, too: the shell's has the status of its end."""
    return (
        f"{{ code=$({{ {{ {first}; echo $? >&3; }} | {{ {then}; }} >&4; }} 3>&1) && "
        '[ "$code" = 0 ]; } 4>&1'
    )


def _changed_meanwhile(said: str) -> bool:
    """Whether that is all: whoever changed a Secret meanwhile has had it encrypted anew, too."""
    lines = said.strip().splitlines()
    return bool(lines) and all("(Conflict)" in x or "(NotFound)" in x for x in lines)


def _refuse_to_forget(trust: Trust, machine: Machine, step: str, cause: str) -> NoReturn:
    raise PhaseError("secrets", [Failure(machine.name, step, cause)], hint=_again(trust))
