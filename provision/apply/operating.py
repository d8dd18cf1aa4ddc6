"""Call pyinfra's operations, carry them out on machines, and collect their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import gevent
from gevent.lock import BoundedSemaphore
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import State, StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

from provision.apply.connector import connector_of
from provision.apply.install import JOURNAL
from provision.apply.ssh import last_lines
from provision.local.progress import Progress
from provision.model.errors import ClusterctlError, Failure

T = TypeVar("T")


@dataclass(frozen=True)
class OperationResult:
    """One operation on one machine. `output`: its stdout."""

    name: str
    changed: bool
    output: str = ""


@dataclass(frozen=True)
class MachineResult:
    """What a phase did on one machine; in a dry run, what it would do. `seconds`: wall time."""

    operations: tuple[OperationResult, ...]
    seconds: float

    @property
    def changed(self) -> bool:
        return any(operation.changed for operation in self.operations)


# pyinfra has one context for the State, and one for the inventory, in the whole process. It reads
# them only while a deploy is called. Executing operations uses other contexts, one per greenlet. So
# the deploys of two phases are called one after the other.
_calling = BoundedSemaphore()


@contextmanager
def called(state: State) -> Iterator[None]:
    """Set pyinfra's contexts to this State while the block calls a deploy."""
    with _calling:
        ctx_state.set(state)  # type: ignore[no-untyped-call]
        ctx_inventory.set(state.inventory)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            ctx_state.reset()
            ctx_inventory.reset()


def execute(
    state: State,
    outcomes: dict[Host, float | Failure],
    progress: Progress,
    finished: Callable[[str, MachineResult], None] | None,
) -> dict[Host, float | Failure]:
    """Carry out the operations on the machines where there is no failure yet."""

    def one(host: Host) -> float | Failure:
        begun = time.monotonic()
        connector = connector_of(host)
        connector.progress = partial(progress.update, host.name)
        for op_hash in host.op_hash_order:
            connector.component = connector.step = ""
            progress.update(host.name, _name(state, op_hash))
            if not run_host_op(state, host, op_hash):
                return _failure(state, host, op_hash)
        seconds = time.monotonic() - begun
        if finished:
            finished(host.name, MachineResult(tuple(operations(state, host)), seconds))
        return seconds

    state.set_stage(StateStage.Execute)
    state.is_executing = True
    ready = [host for host, outcome in outcomes.items() if not isinstance(outcome, Failure)]
    return {
        host: _expected(host, "execute", outcome) if isinstance(outcome, Exception) else outcome
        for host, outcome in each(state, ready, one).items()
    }


def each(
    state: State, hosts: Sequence[Host], function: Callable[[Host], T]
) -> dict[Host, T | Exception]:
    """Call the function for all hosts at once, in pyinfra's contexts. Errors are returned."""

    def call(host: Host) -> T | Exception:
        ctx_config.set(state.config.copy())  # type: ignore[no-untyped-call]
        ctx_host.set(host)  # type: ignore[no-untyped-call]
        try:
            return function(host)
        except Exception as error:  # noqa: BLE001  every caller judges it
            return error

    greenlets = {host: state.pool.spawn(call, host) for host in hosts}
    gevent.joinall(list(greenlets.values()))
    return {host: greenlet.value for host, greenlet in greenlets.items()}


def _name(state: State, op_hash: str) -> str:
    return ", ".join(sorted(state.get_op_meta(op_hash).names)) or "operation"


def operations(state: State, host: Host) -> Iterator[OperationResult]:
    """What the operations of a machine did; in a dry run, what they would do."""
    for op_hash in host.op_hash_order:
        meta = state.ops[host][op_hash].operation_meta
        name = _name(state, op_hash)
        if meta.is_complete():
            yield OperationResult(name, meta.did_change(), meta.stdout)
        else:
            yield OperationResult(name, meta.will_change)


def _failure(state: State, host: Host, op_hash: str) -> Failure:
    """The failure of an operation, from what its commands wrote to stderr."""
    meta = state.ops[host][op_hash].operation_meta
    connector = connector_of(host)
    journal = [line.removeprefix(JOURNAL) for line in meta.stderr_lines if line.startswith(JOURNAL)]
    others = [line for line in meta.stderr_lines if not line.startswith(JOURNAL)]
    code = connector.answer.code if connector.answer else None
    silent = f"exit status {code}" if code else "the operation failed; the log has more"
    name = connector.component or _name(state, op_hash)
    return Failure(
        machine=host.name,
        step=f"{name}: {connector.step}" if connector.step else name,
        cause=last_lines("\n".join(others)) or last_lines(meta.stdout) or silent,
        journal="\n".join(journal),
        hint=connector.error.hint if connector.error else "",
    )


def unprepared(host: Host, error: Exception) -> Failure:
    """The failure of a machine that could not be reached, or whose deploy could not be called."""
    connector = connector_of(host)
    if connector.error is not None:
        step = "connect" if isinstance(error, ConnectError) else "prepare"
        return Failure(host.name, step, connector.error.message, hint=connector.error.hint)
    return _expected(host, "prepare", error)


def _expected(host: Host, step: str, error: Exception) -> Failure:
    """A failure of this machine, or the error itself if it is a mistake of the program."""
    if isinstance(error, (PyinfraError, ClusterctlError)):
        hint = error.hint if isinstance(error, ClusterctlError) else ""
        return Failure(host.name, step, str(error) or type(error).__name__, hint=hint)
    raise error
