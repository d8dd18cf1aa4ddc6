"""One machine of a running cluster: added, removed, replaced, at no risk to the quorum.

Each is a few steps in the cluster, on whatever master is healthy, around the same plan and phases
that `up` has; so a run that was killed is finished by running it again, or by `up`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from provision import inventory
from provision.apply import etcd_members, kubectl
from provision.apply.drain import Pdb, Workload, drain, workload
from provision.apply.phases import ADDONS, UP, VERIFY, Run, execute
from provision.apply.session import Session, open_session
from provision.commands import converge, down
from provision.desired.components.control_plane import KUBECTL
from provision.local.progress import Progress
from provision.model.cluster import Cluster, Machine
from provision.model.errors import Failure, PhaseError, RefusedError, UnreachableError
from provision.model.look import Look
from provision.model.observed import Observed, api_view
from provision.plan.quorum import against_removal, membership

DRAIN_TIMEOUT = 300  # seconds
NODE_READY = "its Node is Ready"


@dataclass(frozen=True)
class Leaving:
    """A machine that is to leave a cluster, as it is now.

    Attributes:
        look: the cluster's machines, this one among them.
        machine: the one that leaves.
        answers: whether it can be looked at.
        health: what of it is well; empty: nothing that the cluster would miss.
        there: what runs on it.
    """

    session: Session
    look: Look
    machine: Machine
    answers: bool
    health: tuple[str, ...]
    there: Workload

    @property
    def leader(self) -> Machine:
        """A master that stays."""
        return self.look.leader(but=self.machine.name)


@dataclass(frozen=True)
class Options:
    """How a machine leaves.

    Attributes:
        pdb: what to do about PodDisruptionBudgets.
        drain_timeout: seconds.
        force: also if pods are lost by it, or the machine is well.
    """

    pdb: Pdb = Pdb.WAIT
    drain_timeout: int = DRAIN_TIMEOUT
    force: bool = False


# Add


def prepare_add(session: Session, name: str) -> Run:
    """Plan to bring a machine of the inventory into its running cluster. Touches nothing.

    A worker needs a look at itself and at one master, no matter how large the cluster is. Every
    node's proxy has to know a new master, and every firewall a new machine: that is `up`.

    Raises:
        RefusedError: there is no cluster.
        UnreachableError: the machine or all masters do not answer.
    """
    machine = session.cluster.machine(name)
    whole = machine.is_master or machine.has_etcd or session.cluster.firewall.enabled
    run = converge.prepare(session)[0] if whole else _prepare_alone(session, name)
    if not run.plan.running:
        message = f"{session.cluster.name} does not exist yet"
        raise RefusedError(message, hint=f"clusterctl up {session.cluster.inventory}")
    return run


def _prepare_alone(session: Session, name: str) -> Run:
    """Plan for one machine, having looked at it and at one master that is ready."""
    for master in session.cluster.masters:
        look = session.observe((name, master.name))
        if look.api() is None:
            continue
        run, _ = converge.prepare(session, look)
        if name in run.plan.absent:
            raise UnreachableError(run.plan.absent[name], hint="start it, then again")
        alone = {name: run.plan.machines[name]}
        return replace(run, plan=replace(run.plan, machines=alone, apply=(), delete=()))
    message = f"no apiserver of {session.cluster.name} is ready"
    raise UnreachableError(message, hint=f"clusterctl status {session.cluster.inventory}")


# Leave


@contextmanager
def leaving(
    path: Path, name: str, progress: Progress, *, left: Collection[str] = ()
) -> Iterator[Leaving]:
    """Look at a cluster that a machine is to leave. Touches nothing.

    Args:
        left: machines that have just left it, and are in the inventory still.

    Raises:
        RefusedError: it must not leave, or nobody knows it.
        UnreachableError: no master is ready.
    """
    others = frozenset(named(path, name)) - {name, *left}
    with open_session(path, progress, names=others) as session:
        machines = tuple(m for m in session.cluster.machines if m.name not in left)
        smaller = session.cluster.model_copy(update={"machines": machines})
        yield _look(replace(session, cluster=smaller), name)


def look_again(case: Leaving) -> Leaving:
    """The same, from what the machines are now.

    For who has just taken the lock: another operator may have put it right since the first look.

    Raises:
        RefusedError, UnreachableError: see `leaving`.
    """
    return _look(case.session, case.machine.name)


def _look(session: Session, name: str) -> Leaving:
    gone = _gone(session, name)
    look = session.observe(gone={name: gone} if gone else {})
    machine = session.cluster.machine(name)
    refuse_leaving(session.cluster, look, machine)
    if look.api(but=name) is None:
        message = f"no other apiserver of {session.cluster.name} is ready"
        hint = f"clusterctl status {session.cluster.inventory}"
        raise UnreachableError(message, hint=hint)
    return Leaving(
        session,
        look,
        machine,
        look[name].reachable,
        health(session.cluster, look, machine, gone=bool(gone)),
        workload(session, look.leader(but=name), name),
    )


def refuse_leaving(cluster: Cluster, observed: Mapping[str, Observed], machine: Machine) -> None:
    """Check that the others can do without it. Pure.

    Raises:
        RefusedError: they cannot, with the way out.
    """
    if machine.is_master and len(cluster.masters) == 1:
        message = f"{machine.name} is the only master: without it there is no cluster"
        raise RefusedError(
            message, hint=f"to remove the cluster: clusterctl down {cluster.inventory}"
        )
    if not machine.has_etcd:
        return
    known = membership(cluster, observed)
    if known is None:
        message = f"etcd has no quorum: its members cannot agree that {machine.name} leaves"
        raise RefusedError(
            message,
            hint="start the other members' machines; if they are gone for good: "
            f"clusterctl recover {cluster.inventory}",
        )
    if reason := against_removal(known, machine.name):
        message = f"the etcd member {machine.name} must not be removed now: {reason}"
        sick = next((name for name in known.ailing if name != machine.name), "")
        raise RefusedError(
            message,
            hint=f"repair or replace {sick} first"
            if sick
            else f"to remove the cluster: clusterctl down {cluster.inventory}",
        )


def health(
    cluster: Cluster, observed: Mapping[str, Observed], machine: Machine, *, gone: bool = False
) -> tuple[str, ...]:
    """What of a machine is well. Pure.

    Args:
        gone: what made it says that it does not run. Else its Node is believed, which says for
            40 s after a machine's death that it is Ready.
    """
    known = membership(cluster, observed)
    api = api_view({name: view for name, view in observed.items() if name != machine.name})
    node = next((n for n in api.nodes if n.name == machine.name), None) if api else None
    view = observed[machine.name]
    emptied = view.reachable and not view.registered
    return (
        *(("its etcd member is healthy",) if known and machine.name in known.healthy else ()),
        *((NODE_READY,) if node and node.ready and not gone and not emptied else ()),
    )


def _gone(session: Session, name: str) -> str:
    """How what made a machine says that it does not run; empty: it does, or nobody knows."""
    states = {status.name: status.state for status in session.source.status(session.draft)}
    state = states.get(name, "")
    return f"its machine is {state}" if state in {"stopped", "absent"} else ""


def remove(case: Leaving, options: Options) -> None:
    """Take a machine out of the cluster: its pods, its member, its Node, what we put on it.

    Raises:
        RefusedError, PhaseError: see `drain`; and with what failed.
    """
    _drain(case, options)
    run, _ = converge.prepare(*_without(case))
    # Before it goes: from here on no proxy sends it anything.
    execute(run, [phase for phase in UP if phase not in (VERIFY, ADDONS)])
    _forget(case)
    execute(run, [VERIFY])


def refuse_replacing(path: Path, case: Leaving, *, force: bool) -> None:
    """Check that there is something to replace, and something to replace it with.

    Raises:
        RefusedError: it is well, or its successor is not there yet.
    """
    session, name = case.session, case.machine.name
    if session.cluster.certificates.external:
        message = (
            f"{name}: the keys of its successor have to exist, and be signed for elsewhere, before "
            "it can join"
        )
        raise RefusedError(
            message,
            hint=f"clusterctl node remove {path} {name}; put the new machine in its place; "
            f"clusterctl certs csr {path} -o DIR; clusterctl certs import {path} DIR; "
            f"clusterctl up {path}",
        )
    made = session.draft.source.makes_machines
    if case.health and not force:
        message = f"{name} is not dead: {' and '.join(case.health)}"
        wait = "" if case.answers else "if it has just died, its Node says so within a minute; "
        raise RefusedError(
            message, hint=f"{wait}to replace it all the same, its pods moved elsewhere: --force"
        )
    if not (made or case.answers):
        message = f"no machine answers as {name}: {case.look[name].error}"
        raise RefusedError(
            message,
            hint=f"put the new machine in its place, or its address into {path}, then again. "
            f"To go on without it: clusterctl node remove {path} {name}",
        )


def forget(case: Leaving, options: Options) -> None:
    """Have the cluster forget a machine, so that `up` brings its successor in as a new one.

    Raises:
        RefusedError, PhaseError: see `drain`; and with what failed.
    """
    _drain(case, options)
    _forget(case)


def _forget(case: Leaving) -> None:
    _forget_member(case)
    _clean(case)
    _forget_node(case)


def _drain(case: Leaving, options: Options) -> None:
    """Move its pods; from a machine that is dead nothing can be moved."""
    if not case.answers or NODE_READY not in case.health:
        return
    name, progress = case.machine.name, case.session.progress
    with progress.phase("drain", "its pods move elsewhere", (name,)):
        drain(
            case.session,
            case.leader,
            name,
            pdb=options.pdb,
            timeout=options.drain_timeout,
            orphans=options.force,
        )
        progress.done(name)


def _forget_member(case: Leaving) -> None:
    if case.machine.has_etcd:
        via = etcd_members.healthy_member(case.look, but=case.machine.name)
        etcd_members.remove(case.session, via, case.machine.name)


def _clean(case: Leaving) -> None:
    """Nothing of ours on a machine that answers; a machine that we made goes whole."""
    session, name = case.session, case.machine.name
    if session.source.remove(session.draft, (name,), session.progress) or not case.answers:
        return
    code, _, error = down.clean_machine(session, case.machine)
    if code != 0:
        cause = error.strip() or f"exit status {code}"
        raise PhaseError("remove", [Failure(name, "remove what we put there", cause)])


def _forget_node(case: Leaving) -> None:
    """Its Node goes, and its pods with it: nobody is there to say that they have ended."""
    name = quote(case.machine.name)
    program = (
        f"{KUBECTL} delete node {name} --ignore-not-found >/dev/null && "
        f"{KUBECTL} delete pods -A --field-selector=spec.nodeName={name} --force "
        "--grace-period=0 --wait=false >/dev/null 2>&1"
    )
    code, _, error = kubectl.run(case.session, case.leader, program)
    if code != 0:
        raise PhaseError("remove", [Failure(case.leader.name, "delete the Node", error.strip())])


def _without(case: Leaving) -> tuple[Session, Look]:
    """The same session and look, of a cluster that never had this machine."""
    cluster = case.session.cluster
    machines = staying(cluster, case.look, case.machine.name)
    smaller = cluster.model_copy(update={"machines": machines})
    return replace(case.session, cluster=smaller), case.look.of(smaller)


def staying(cluster: Cluster, observed: Mapping[str, Observed], name: str) -> tuple[Machine, ...]:
    """The machines that a removal leaves; workers that are yet to join wait for an `up`. Pure."""
    return tuple(
        machine
        for machine in cluster.machines
        if machine.name != name
        and (
            machine.is_master
            or machine.has_etcd
            or observed[machine.name].registered
            or not observed[machine.name].reachable
        )
    )


def named(path: Path, name: str) -> tuple[str, ...]:
    """The names of an inventory's machines, which this one is among.

    Raises:
        RefusedError: it is not.
    """
    names = tuple(host.name for host in inventory.read(path).hosts)
    if name not in names:
        message = f"{path} has no machine {name!r}; it has {', '.join(names)}"
        raise RefusedError(message, hint=f"add it to a group of {path}, or correct the name")
    return names
