"""Add, remove or replace one machine of a running cluster, without risk to the quorum.

Each command is a few steps in the cluster, through any healthy master, around the plan and phases
of `up`. So the same command, or `up`, finishes a run that was killed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from provision import inventory
from provision.apply import etcd_members, kubectl
from provision.apply.checked import checked
from provision.apply.drain import Pdb, Workload, drain, workload
from provision.apply.local_volumes import LocalVolume, deletion, lost
from provision.apply.phases import ADDONS, UP, VERIFY, Run, execute
from provision.apply.session import Session, open_session
from provision.apply.unfinished import marked
from provision.commands import converge, down
from provision.desired.components.control_plane import KUBECTL
from provision.local.progress import Progress
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError, UnreachableError
from provision.model.look import Look
from provision.model.observed import Observed, api_view
from provision.plan.quorum import against_removal, membership

DRAIN_TIMEOUT = 300  # seconds
NODE_READY = "its Node is Ready"


@dataclass(frozen=True)
class Leaving:
    """A machine that is going to leave a cluster, as it is now.

    Attributes:
        look: the cluster's machines, this one among them.
        machine: the machine that leaves.
        answers: whether it answered.
        health: signs that it still works, as texts; empty: the cluster would not miss it.
        there: the pods and volumes on it.
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
        force: even if pods are lost, or the machine still works.
    """

    pdb: Pdb = Pdb.WAIT
    drain_timeout: int = DRAIN_TIMEOUT
    force: bool = False


@dataclass(frozen=True)
class Left:
    """The deleted volumes and the remaining kernel settings of a removed machine.

    Attributes:
        volumes: the volumes that were deleted with the machine.
        kernel: the kernel settings that stay on it (`provision.commands.down.Removed`).
    """

    volumes: tuple[LocalVolume, ...] = ()
    kernel: tuple[str, ...] = ()


# Add


def prepare_add(session: Session, name: str) -> Run:
    """Plan to bring a machine of the inventory into its running cluster. Touches nothing.

    To add a worker, looking at it and at one master is enough, however large the cluster is. A new
    master changes the proxy of every node, and with firewalls a new machine changes all of them:
    then all machines are planned for, as `up` does.

    Raises:
        RefusedError: the cluster does not exist.
        UnreachableError: the machine does not answer, or no master does.
    """
    machine = session.cluster.machine(name)
    whole = machine.is_master or machine.has_etcd or session.cluster.firewall.enabled
    run = converge.prepare(session)[0] if whole else _prepare_alone(session, name)
    if not run.plan.running:
        message = f"{session.cluster.name} does not exist yet"
        raise RefusedError(message, hint=clusterctl("up", session.cluster.inventory))
    return run


def _prepare_alone(session: Session, name: str) -> Run:
    """Plan for one machine, from a look at it and at one master that is ready."""
    for master in session.cluster.masters:
        look = session.observe((name, master.name))
        if look.api() is None:
            continue
        run, _ = converge.prepare(session, look)
        if name in run.plan.absent:
            raise UnreachableError(
                run.plan.absent[name], hint="start it, then run the same command again"
            )
        alone = {name: run.plan.machines[name]}
        return replace(run, plan=replace(run.plan, machines=alone, apply=(), delete=()))
    message = f"no apiserver of {session.cluster.name} is ready"
    raise UnreachableError(message, hint=clusterctl("status", session.cluster.inventory))


# Leave


@contextmanager
def leaving(
    path: Path, name: str, progress: Progress, *, left: Collection[str] = ()
) -> Iterator[Leaving]:
    """Look at a cluster that a machine is going to leave. Touches nothing.

    Args:
        left: machines that have just left the cluster and are still in the inventory.

    Raises:
        RefusedError: the machine must not leave, or is not in the inventory.
        UnreachableError: no other master is ready.
    """
    others = frozenset(named(path, name)) - {name, *left}
    with open_session(path, progress, names=others) as session:
        machines = tuple(m for m in session.cluster.machines if m.name not in left)
        smaller = session.cluster.model_copy(update={"machines": machines})
        yield _look(replace(session, cluster=smaller), name)


def look_again(case: Leaving) -> Leaving:
    """Look again.

    Called after the lock was taken: another operator may have repaired the machine meanwhile.

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
        hint = clusterctl("status", session.cluster.inventory)
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
    """Check that the cluster works without this machine. Pure.

    Raises:
        RefusedError: it would not; the hint says what to do.
    """
    if machine.is_master and len(cluster.masters) == 1:
        message = f"{machine.name} is the only master: the cluster cannot work without it"
        raise RefusedError(
            message, hint=f"to remove the cluster: {clusterctl('down', cluster.inventory)}"
        )
    if not machine.has_etcd:
        return
    known = membership(cluster, observed)
    if known is None:
        message = f"etcd has no quorum: {machine.name} cannot be removed from its members"
        raise RefusedError(
            message,
            hint="start the machines of the other members; if they are lost for good: "
            f"{clusterctl('recover', cluster.inventory)}",
        )
    if reason := against_removal(known, machine.name):
        message = f"the etcd member {machine.name} must not be removed now: {reason}"
        sick = next((name for name in known.ailing if name != machine.name), "")
        raise RefusedError(
            message,
            hint=f"repair or replace {sick} first"
            if sick
            else f"to remove the cluster: {clusterctl('down', cluster.inventory)}",
        )


def health(
    cluster: Cluster, observed: Mapping[str, Observed], machine: Machine, *, gone: bool = False
) -> tuple[str, ...]:
    """Signs that a machine still works. Pure.

    Args:
        gone: its source says that it does not run. Otherwise its Node counts, which stays Ready
            for 40 s after the machine's death.
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
    """Why a machine does not run, by its source; empty: it runs, or the source does not know."""
    states = {status.name: status.state for status in session.source.status(session.draft)}
    state = states.get(name, "")
    return f"its machine is {state}" if state in {"stopped", "absent"} else ""


def remove(case: Leaving, options: Options) -> Left:
    """Take a machine out of the cluster: its pods, etcd member, Node, and what is installed on it.

    Returns:
        Only the deleted volumes that still have a claim.

    Raises:
        RefusedError, PhaseError: see `drain`; or a later step failed.
    """
    _drain(case, options)
    run, _ = converge.prepare(*_without(case))
    # First change the other machines: from here on no proxy sends requests to this one.
    with marked(run):
        execute(run, [phase for phase in UP if phase not in (VERIFY, ADDONS)])
        left = _forget(case)
        execute(run, [VERIFY])
    return replace(left, volumes=lost(case.session, case.leader, left.volumes))


def refuse_replacing(path: Path, case: Leaving, *, force: bool) -> None:
    """Check that the machine is dead, and that a new one can take its place.

    Raises:
        RefusedError: it still works, or the new machine is not there yet.
    """
    session, name = case.session, case.machine.name
    if session.cluster.certificates.external:
        message = (
            f"{name} cannot be replaced in one step: the external authority must first sign "
            "certificates for the new machine's keys"
        )
        raise RefusedError(
            message,
            hint=f"{clusterctl('node', 'remove', path, name)}; put the new machine in its place; then "
            f"{clusterctl('certs', 'csr', path, '-o', 'DIR')}; {clusterctl('certs', 'import', path, 'DIR')}; "
            f"{clusterctl('up', path)}",
        )
    made = session.draft.source.makes_machines
    if case.health and not force:
        message = f"{name} is not dead: {' and '.join(case.health)}"
        wait = "" if case.answers else "if it has just died, wait a minute for its Node; "
        raise RefusedError(
            message,
            hint=f"{wait}--force replaces it all the same, and moves its pods to other nodes first",
        )
    if not (made or case.answers):
        message = f"no new machine answers for {name}: {case.look[name].error}"
        raise RefusedError(
            message,
            hint=f"put the new machine in its place, or correct its address in {path}, then run the "
            f"same command again. To go on without it: {clusterctl('node', 'remove', path, name)}",
        )


def forget(case: Leaving, options: Options) -> Left:
    """Make the cluster forget a machine, so that `up` adds its successor as a new machine.

    Raises:
        RefusedError, PhaseError: see `drain`; or a later step failed.
    """
    _drain(case, options)
    return _forget(case)


def _forget(case: Leaving) -> Left:
    _forget_member(case)
    kernel = _clean(case)
    return Left(_forget_node(case), kernel)


def _drain(case: Leaving, options: Options) -> None:
    """Move its pods to other nodes; the pods of a dead machine cannot be moved."""
    if not case.answers or NODE_READY not in case.health:
        return
    name, progress = case.machine.name, case.session.progress
    with progress.phase("drain", "its pods move to other nodes", (name,)):
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


def _clean(case: Leaving) -> tuple[str, ...]:
    """Remove the machine itself if clusterctl made it; else what clusterctl installed, if it answers.

    Returns:
        The kernel settings that stay on it.
    """
    session, name = case.session, case.machine.name
    if session.source.remove(session.draft, (name,), session.progress) or not case.answers:
        return ()
    answer = down.clean_machine(session, case.machine)
    out = checked(answer, case.machine, "remove", "remove what clusterctl installed")
    return tuple(out.splitlines())


def _forget_node(case: Leaving) -> tuple[LocalVolume, ...]:
    """Delete the machine's Node, pods and volumes, because the machine can no longer do this.

    Returns:
        The volumes.
    """
    # The drain took time: another volume may have been made.
    volumes = workload(case.session, case.leader, case.machine.name).volumes
    known = {volume.name: volume for volume in case.there.volumes}
    name = quote(case.machine.name)
    program = (
        f"{KUBECTL} delete node {name} --ignore-not-found >/dev/null && "
        f"{KUBECTL} delete pods -A --field-selector=spec.nodeName={name} --force "
        "--grace-period=0 --wait=false >/dev/null 2>&1 || exit 1\n"
    )
    answer = kubectl.run(case.session, case.leader, program + deletion(volumes))
    checked(answer, case.leader, "remove", "delete the Node and the volumes on its disk")
    # Prefer the earlier entries: the drain has moved the pods since.
    return tuple(known.get(volume.name, volume) for volume in volumes)


def _without(case: Leaving) -> tuple[Session, Look]:
    """The same session and look, of a cluster that never had this machine."""
    cluster = case.session.cluster
    machines = staying(cluster, case.look, case.machine.name)
    smaller = cluster.model_copy(update={"machines": machines})
    return replace(case.session, cluster=smaller), case.look.of(smaller)


def staying(cluster: Cluster, observed: Mapping[str, Observed], name: str) -> tuple[Machine, ...]:
    """The machines that stay after a removal; not workers that have not joined: `up` adds those. Pure."""
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
    """The names of an inventory's machines.

    Raises:
        RefusedError: `name` is not one of them.
    """
    names = tuple(host.name for host in inventory.read(path).hosts)
    if name not in names:
        message = f"{path} has no machine {name!r}; it has {', '.join(names)}"
        raise RefusedError(message, hint=f"add it to a group of {path}, or correct the name")
    return names
