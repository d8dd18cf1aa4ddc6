"""What a phase is, what the phases of one run share, and what a phase gets for its work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from provision.apply import kubectl
from provision.apply.checked import checked
from provision.apply.self_join import Bundle
from provision.apply.session import Session
from provision.artifacts.model import ArtifactSet
from provision.local.progress import Progress
from provision.model.cluster import Machine
from provision.model.look import Look
from provision.pki.trust import Trust
from provision.plan.model import Plan


@dataclass
class Run:
    """What the phases of one run share.

    Attributes:
        look: the machines as they were when this was planned.
        token: kubelets ask with it for their first certificate; empty: no machine registers.
        bundle: what machines that join by themselves need; None: there are no such machines.
        seconds: phase -> wall time.
    """

    session: Session
    look: Look
    trust: Trust
    artifacts: ArtifactSet
    plan: Plan
    now: datetime
    token: str = ""
    bundle: Bundle | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def machines(self, names: Iterable[str]) -> tuple[Machine, ...]:
        wanted = set(names)
        return tuple(m for m in self.session.cluster.machines if m.name in wanted)


@dataclass(frozen=True, eq=False)
class Phase:
    """A step of a workflow, and what it depends on where phases overlap.

    Attributes:
        name, summary: for the operator; nothing is decided by them.
        machines: names of the machines where there is something to do; empty: the phase is skipped.
        run: carries out the phase; raises PhaseError with every failure.
        after: phases that have ended on all machines before this one begins on any.
        after_here: phases that have ended on this phase's own machines before it begins there.
        each: the phase is carried out on each machine alone, as soon as that machine is ready.
            False: it is carried out on all its machines together.
    """

    name: str
    summary: str
    machines: Callable[[Run], tuple[str, ...]]
    run: Callable[[Work], None]
    after: tuple[Phase, ...] = ()
    after_here: tuple[Phase, ...] = ()
    each: bool = False


@dataclass(frozen=True)
class Work:
    """A phase that is being carried out.

    Attributes:
        machines: where it is carried out.
        progress: shows it.
        finished: called with each machine on which the phase has ended before the whole phase ends.
    """

    run: Run
    phase: Phase
    machines: tuple[Machine, ...]
    progress: Progress
    finished: Callable[[Machine], None] = lambda _: None

    @property
    def session(self) -> Session:
        return self.run.session

    @property
    def plan(self) -> Plan:
        return self.run.plan

    def on(self, deploy: Callable[[Machine], object], machines: Sequence[Machine]) -> None:
        """Call a deploy on machines, side by side.

        Raises:
            PhaseError: with every machine that failed.
        """
        self.session.engine.run(self.phase.name, deploy, machines, self.progress)


def is_control_plane(run: Run, name: str) -> bool:
    """Whether this machine is a master or a member of etcd."""
    machine = run.session.cluster.machine(name)
    return machine.is_master or machine.has_etcd


def leader(run: Run) -> tuple[str, ...]:
    """The master through which this run talks to the API, for phases that do nothing else."""
    return (run.look.leader().name,)


def all_nodes(run: Run) -> tuple[str, ...]:
    """All nodes that this run may touch."""
    return tuple(m.name for m in run.session.cluster.nodes if m.name in run.plan.machines)


def run_kubectl(work: Work, leader: Machine, step: str, command: str, stdin: bytes = b"") -> None:
    """Run a program of kubectl commands on a master.

    Raises:
        PhaseError: the program failed.
    """
    answer = kubectl.run(work.session, leader, command, stdin)
    hint = "run the same command again: it goes on where it stopped"
    checked(answer, leader, step, f"kubectl: {step}", hint=hint)
