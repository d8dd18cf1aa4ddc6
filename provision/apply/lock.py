"""One operator at a time: `with hold(session, "up"):` around all that changes a cluster.

Every master that answers is locked (`provision.desired.lock_programs`), in the order of their
names. So any other operator who can reach one of them is refused. It needs SSH only, so it works
before there is an API, and when the API is dead. Commands that only look take no lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import gevent
from gevent.event import Event

from provision.apply.engine import Engine
from provision.apply.session import Session
from provision.desired.lock_programs import HELD, free, inspect, parse, take
from provision.local import changes
from provision.local.operators import gone, lost, taken, this_operator
from provision.model import paths
from provision.model.cluster import Machine
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError, UnreachableError
from provision.model.holder import BEAT, Holder
from provision.model.look import Look

RETRY = 5  # seconds until a lock whose connection broke is taken again
_GRACE = 5  # seconds for the machines to release the lock
_FOREVER = 7 * 24 * 3600  # seconds
_KILLED = 128 + 15  # exit status: SIGTERM, from `unlock`


@contextmanager
def hold(
    session: Session, command: str, look: Look | None = None, *, lock: str = paths.LOCK
) -> Iterator[None]:
    """Keep other operators out for as long as the block runs.

    If another operator takes the lock away, the RefusedError stops the block. A master whose
    connection breaks is locked again when it is back.

    Args:
        command: of clusterctl, for the message that a second operator gets: `node add`.
        look: masters that it left out or found unreachable are not locked; None: try all.
        lock: the file on the machines.

    Raises:
        RefusedError: another operator works on the cluster, or has taken the lock away.
    """
    inventory = session.cluster.inventory
    mine = this_operator(f"clusterctl {command} {inventory}")
    with session.cache.hold(mine), _held(session, mine, _masters(session, look), lock):
        yield


@contextmanager
def _held(
    session: Session, mine: Holder, masters: tuple[Machine, ...], lock: str
) -> Iterator[None]:
    """Keep the masters locked."""
    keepers: list[_Keeper] = []
    try:
        for machine in masters:
            keeper = _Keeper(session.engine, machine, mine, lock, session.cluster.inventory)
            keepers.append(keeper)
            keeper.settled.wait()
            if keeper.refusal:
                raise keeper.refusal
        if not any(keeper.held for keeper in keepers):
            reasons = "; ".join(f"{k.machine.name}: {k.problem}" for k in keepers) or "none answers"
            session.progress.note(f"no master could be locked against other operators ({reasons})")
        changes.begin(f"the machines of {session.cluster.name}")
        yield
    finally:
        for keeper in keepers:
            keeper.ended.set()
        gevent.joinall([keeper.greenlet for keeper in keepers], timeout=_GRACE)
        gevent.killall([keeper.greenlet for keeper in keepers], block=False)


def at_work(session: Session, look: Look) -> Holder | None:
    """The other operator who changes the cluster; None: there is none.

    That operator held the lock of a machine at this look, or holds the shared state's lock now.
    """
    mine = this_operator()
    holders = (*(seen.holder for seen in look.values()), session.cache.holder())
    others = (h for h in holders if h and (h.host, h.pid) != (mine.host, mine.pid))
    return next((holder for holder in others if not gone(holder)), None)


def refuse_second(session: Session, look: Look) -> None:
    """Refuse to go on if another operator was at work at this look.

    `hold` refuses too, but only after preflight has judged the other operator's half-made change.

    Raises:
        RefusedError: names the other operator.
    """
    if holder := at_work(session, look):
        raise taken(holder, session.cluster.inventory)


def holders(session: Session, *, lock: str = paths.LOCK) -> Mapping[str, Holder]:
    """Master, or the shared state -> the operator who has locked it.

    Masters that do not answer, and those that are free, are left out.

    Raises:
        UnreachableError: no master answers.
    """
    if holder := session.cache.holder():
        return {session.cache.where: holder}
    seen = session.engine.fetch(lambda _: inspect(lock), _masters(session, None))
    if all(answer.error for answer in seen.values()):
        reasons = "; ".join(f"{name}: {answer.error}" for name, answer in seen.items())
        message = f"no master of {session.cluster.name} answers: {reasons}"
        raise UnreachableError(
            message,
            hint=f"{clusterctl('check', session.cluster.inventory)} shows what is wrong with each",
        )
    return {name: who for name, answer in seen.items() if (who := parse(answer.output))}


def unlock(session: Session, machines: Mapping[str, Holder], *, lock: str = paths.LOCK) -> None:
    """Take these locks away from their holders, whose commands stop.

    Args:
        machines: masters, and the shared state, as `holders` gives them.

    Raises:
        RefusedError: a lock could not be taken away.
    """
    session.cache.free()
    for name in machines.keys() - {session.cache.where}:
        code, output, error = session.engine.shell(session.cluster.machine(name), free(lock))
        if code != 0:
            message = f"{name} is still locked by {parse(output) or error.strip()}"
            raise RefusedError(message, hint="another operator has just begun: look again")


def _masters(session: Session, look: Look | None) -> tuple[Machine, ...]:
    masters = session.cluster.masters
    answering = masters if look is None else look.answering(masters)
    return tuple(sorted(answering, key=lambda m: m.name))


class _Keeper:
    """Keeps one master's lock, from a greenlet of its own.

    Attributes:
        held: the lock has been held, at least once.
        settled: the first try has ended: held, refused, or there is a problem.
        ended: set it to release the lock.
    """

    def __init__(
        self, engine: Engine, machine: Machine, mine: Holder, lock: str, inventory: Path
    ) -> None:
        self.machine = machine
        self.held = False
        self.problem = ""
        self.refusal: RefusedError | None = None
        self.settled = Event()
        self.ended = Event()
        self._engine = engine
        self._mine = mine
        self._lock = lock
        self._inventory = inventory
        self._main = gevent.getcurrent()
        self.greenlet = gevent.spawn(self._keep)

    def _keep(self) -> None:
        program = take(self._mine, self._lock)
        while not self.ended.is_set():
            try:
                code, output, error = self._engine.stream(
                    self.machine, program, self._beats(), heard=self._hear, timeout=_FOREVER
                )
                if (holder := parse(output)) and (self._is_ours(holder) or gone(holder)):
                    code, output, error = self._engine.shell(self.machine, free(self._lock))
                    if code == 0:
                        continue
                    holder = parse(output)
            except UnreachableError as unreachable:
                self.problem = unreachable.message
            else:
                self.problem = error.strip() or f"exit status {code}"
                if holder:
                    self._refuse(taken(holder, self._inventory))
                elif self.held and code == _KILLED:
                    self._refuse(lost(self.machine.name))
            if self.refusal:
                return
            self.settled.set()
            self.ended.wait(RETRY)

    def _is_ours(self, holder: Holder) -> bool:
        """Whether this run holds it: the machine has not noticed that the connection broke."""
        mine = self._mine
        return (holder.computer, holder.host, holder.pid) == (mine.computer, mine.host, mine.pid)

    def _beats(self) -> Iterator[bytes]:
        while not self.ended.wait(BEAT):
            yield b"\n"

    def _hear(self, line: str) -> None:
        if line == HELD:
            self.held = True
            self.settled.set()

    def _refuse(self, refusal: RefusedError) -> None:
        self.refusal = refusal
        if not self.settled.is_set():
            self.settled.set()
        elif not self.ended.is_set():
            gevent.kill(self._main, refusal)
