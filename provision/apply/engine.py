"""Runs one phase on its machines. The only importer of pyinfra's State.

One State for each phase (it is single-use, and identifies operations by their index), while the
SSH connections stay. Every machine goes through the phase's operations at its own pace, and the
failure of one does not stop the others. Several phases may run at the same time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import gevent
import pyinfra
from gevent.lock import BoundedSemaphore
from pyinfra.api.command import StringCommand
from pyinfra.api.config import Config
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.facts import get_fact
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import State, StateStage
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient.client import get_host_keys
from pyinfra.connectors.util import CommandOutput, OutputLine, make_unix_command
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

from provision.apply.install import JOURNAL, SAY
from provision.apply.operations.raw import Raw
from provision.apply.ssh import Answer, Link, Metrics, chunks, last_lines, with_sudo_password
from provision.local.progress import Progress, Silent
from provision.local.runlog import RunLog
from provision.model.cluster import Cluster, Machine
from provision.model.errors import ClusterctlError, Failure, PhaseError, UnreachableError

GRACE = 2  # seconds that greenlets get to end after Ctrl-C
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


@dataclass(frozen=True)
class Fetched:
    """What a read-only command printed.

    Attributes:
        error: why there is no output, or empty.
        hint: what to do about it.
        off: the machine does not answer at all.
        sent_at: when it was sent, seconds since 1970 by the operator's clock.
        received_at: when the first of its output arrived.
    """

    output: str
    error: str = ""
    hint: str = ""
    off: bool = False
    sent_at: float = 0.0
    received_at: float = 0.0


class _Connector(SSHConnector):
    """pyinfra's SSH connector, on a connection that outlives its State."""

    def __init__(self, state: State, host: Host, link: Link, engine: Engine) -> None:
        super().__init__(state, host)
        self.link = link
        self.engine = engine
        self.answer: Answer | None = None
        self.error: ClusterctlError | None = None
        self.progress: Callable[[str], None] = _ignore
        self.step = ""
        self.secret_output = False

    def connect(self) -> None:
        try:
            self.client = self.link.client()
        except UnreachableError as error:
            self.error = error
            raise ConnectError(error.message) from error

    def run_shell_command(
        self,
        command: StringCommand,
        print_output: bool = False,  # noqa: ARG002  pyinfra's signature
        print_input: bool = False,  # noqa: ARG002
        **arguments: Any,  # noqa: ANN401
    ) -> tuple[bool, CommandOutput]:
        stdin = _lines(arguments.pop("_stdin", None))
        timeout = arguments.pop("_timeout", None) or self.engine.timeout
        pty = bool(arguments.pop("_get_pty", False))
        success = arguments.pop("_success_exit_codes", None) or (0,)
        password = arguments.pop("_sudo_password", None) if arguments.get("_sudo") else None
        user = arguments.get("_sudo_user") or "root"
        if password:
            arguments["_sudo"] = False
        unix = make_unix_command(command, **arguments)
        raw = unix.get_raw_value()
        if password:
            raw, stdin = with_sudo_password(raw, str(password), stdin, user)
        self.answer = self.error = None
        try:
            self.answer = self.link.run(
                raw,
                stdin=stdin,
                timeout=timeout,
                on_line=self._hear,
                shown=str(unix),
                secret_output=self.secret_output,
                pty=pty,
            )
        except UnreachableError as error:
            self.error = error
            return False, CommandOutput([OutputLine("stderr", error.message)])
        except TimeoutError as error:
            self.error = ClusterctlError(
                str(error),
                hint="See what the machine is busy with: "
                f"clusterctl ssh {self.engine.cluster.inventory} {self.host.name}",
            )
            return False, CommandOutput([OutputLine("stderr", str(error))])
        lines = [OutputLine("stdout", line) for line in _split(self.answer.stdout)]
        lines += [OutputLine("stderr", line) for line in _split(self.answer.stderr)]
        return self.answer.code in success, CommandOutput(lines)

    def _hear(self, line: str) -> None:
        if line.startswith(SAY):
            self.step = line.removeprefix(SAY)
            self.progress(self.step)


class Engine:
    """Connections to a cluster's machines and what runs over them.

    Args:
        cluster: whose machines.
        known_hosts: the file with the host keys; none is ever added to it.
        log: of the run.
        timeout: seconds that one command may take, unless it says otherwise itself.
    """

    def __init__(
        self, cluster: Cluster, known_hosts: Path, log: RunLog | None, timeout: int = 600
    ) -> None:
        self.cluster = cluster
        self.timeout = timeout
        self.metrics = Metrics()
        self.log = log
        self._known_hosts = known_hosts
        self._links = {m.name: Link(m, known_hosts, log, self.metrics) for m in cluster.machines}
        self._handler: logging.Handler = log.handler() if log else logging.NullHandler()

    def __enter__(self) -> Self:
        get_host_keys.cache.clear()
        if self.log:
            for machine in self.cluster.machines:
                ssh = machine.ssh
                self.log.mask((ssh.password, ssh.sudo_password, ssh.key_password))
            proxy = self.cluster.proxy
            for password in (urlsplit(url).password for url in (proxy.http, proxy.https) if url):
                self.log.mask((password, unquote(password or "")))
        for logger in (pyinfra.logger, logging.getLogger("paramiko")):
            logger.addHandler(self._handler)
            logger.propagate = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        for logger in (pyinfra.logger, logging.getLogger("paramiko")):
            logger.removeHandler(self._handler)
            logger.propagate = True

    def close(self) -> None:
        """Close all connections."""
        closers = [gevent.spawn(link.close) for link in self._links.values()]
        gevent.joinall(closers, timeout=GRACE)

    def run(
        self,
        phase: str,
        deploy: Callable[[Machine], object],
        machines: Sequence[Machine],
        progress: Progress | None = None,
        *,
        finished: Callable[[str, MachineResult], None] | None = None,
        dry: bool = False,
    ) -> dict[str, MachineResult]:
        """Run a phase: on each machine, the operations that `deploy` calls there.

        Args:
            phase: its name, for errors and metrics.
            machines: where it runs.
            deploy: calls pyinfra operations or deploys; the same ones for every machine.
            progress: is told of every operation; the caller begins and ends the phase.
            finished: is told of each machine on which all operations have succeeded, at once.
            dry: only find out what would change.

        Raises:
            PhaseError: with the failures of all machines.
        """
        started = time.monotonic()
        progress = progress or Silent()
        with self._state(machines, check_for_changes=dry) as state:
            outcomes = self._prepare(state, deploy)
            if not dry:
                outcomes |= _execute(state, outcomes, progress, finished)
            results = {
                host.name: MachineResult(tuple(_operations(state, host)), outcome)
                for host, outcome in outcomes.items()
                if not isinstance(outcome, Failure)
            }
            failures = [o for o in outcomes.values() if isinstance(o, Failure)]
        self.metrics.phases.append((phase, time.monotonic() - started))
        for name, result in results.items():
            progress.done(name, "changed" if result.changed else "unchanged")
        for failure in failures:
            progress.done(failure.machine, failure.cause.splitlines()[-1], failed=True)
        if failures:
            hint = f"Every command and its output is in {self.log.path}." if self.log else ""
            raise PhaseError(phase, failures, hint=hint)
        return results

    def _prepare(
        self, state: State, deploy: Callable[[Machine], object]
    ) -> dict[Host, float | Failure]:
        """Connect, and have the deploy say which operations there are on each machine."""

        def connect(host: Host) -> None:
            host.connect(show_errors=False, raise_exceptions=True)
            state.activate_host(host)

        def call(host: Host) -> None:
            deploy(self.cluster.machine(host.name))

        state.set_stage(StateStage.Prepare)
        problems = _each(state, list(state.inventory), connect)
        connected = [host for host, problem in problems.items() if problem is None]
        with _called(state):
            problems |= _each(state, connected, call)
        return {
            host: 0.0 if problem is None else _unprepared(host, problem)
            for host, problem in problems.items()
        }

    def fetch(
        self,
        command: Callable[[Machine], str],
        machines: Sequence[Machine],
        *,
        secret: bool = False,
    ) -> dict[str, Fetched]:
        """Run a read-only command on every machine, one round trip each, as root.

        What cannot be reached gets an entry with the error.

        Args:
            command: the shell program for a machine.
            machines: which are asked.
            secret: keep the output out of the log.
        """
        with self._state(machines, check_for_changes=False) as state:

            def ask(host: Host) -> Fetched:
                connector = _connector(host)
                connector.secret_output = secret
                try:
                    host.connect(show_errors=False, raise_exceptions=True)
                except ConnectError as error:
                    return _unfetched(connector, str(error))
                output = get_fact(
                    state,
                    host,
                    Raw,
                    kwargs={"program": command(self.cluster.machine(host.name))},
                    apply_failed_hosts=False,
                )
                answer = connector.answer
                if answer is None:
                    return _unfetched(connector, "no answer")
                problem = ""
                if answer.code != 0:
                    problem = last_lines(answer.stderr) or f"exit status {answer.code}"
                return Fetched(
                    output or answer.stdout,
                    problem,
                    sent_at=answer.sent_at,
                    received_at=answer.received_at,
                )

            state.set_stage(StateStage.Prepare)
            answers = _each(state, list(state.inventory), ask)
        return {host.name: _sure(answer) for host, answer in answers.items()}

    def shell(
        self,
        machine: Machine,
        command: str,
        stdin: bytes | None = None,
        *,
        secret_stdin: bool = True,
        secret_output: bool = False,
        timeout: float | None = None,
    ) -> tuple[int, str, str]:
        """Run a command on one machine, as root: (exit status, stdout, stderr).

        Raises:
            UnreachableError: no connection, or it broke.
        """
        if stdin and not secret_stdin and self.log:
            self.log.note(machine.name, f"stdin of the next:\n{stdin.decode(errors='replace')}")
        pieces = (stdin,) if stdin else ()
        return self._shell(machine, command, pieces, secret_output=secret_output, timeout=timeout)

    def connect_anew(self, machine: Machine) -> None:
        """Open one more connection, only to see that it can be done.

        Raises:
            UnreachableError: with the cause.
        """
        link = Link(machine, self._known_hosts, self.log, Metrics())
        try:
            link.client()
        finally:
            link.close()

    def stream(
        self,
        machine: Machine,
        command: str,
        source: Path | Iterable[Path | bytes],
        *,
        sent: Callable[[int], None] | None = None,
        heard: Callable[[str], None] | None = None,
        timeout: float | None = None,
    ) -> tuple[int, str, str]:
        """Feed a file, or several things one after the other, to a command run as root.

        Args:
            machine: where.
            command: for `sh`; reads stdin.
            source: a file, or files and bytes.
            sent: is told the number of bytes sent so far, about once per MiB.
            heard: is given each line of stdout when it arrives.
            timeout: seconds until it must have ended.

        Raises:
            UnreachableError: no connection, or it broke.
            ClusterctlError: the source could not be read here.
        """

        def pieces() -> Iterator[bytes]:
            total = 0
            for item in (source,) if isinstance(source, Path) else source:
                for piece in chunks(item) if isinstance(item, Path) else (item,):
                    yield piece
                    total += len(piece)
                    if sent:
                        sent(total)

        return self._shell(machine, command, pieces(), timeout=timeout, on_line=heard)

    def receive(
        self,
        machine: Machine,
        command: str,
        sink: Callable[[bytes], object],
        stdin: bytes | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[int, str]:
        """Run a command on one machine, as root, whose output is data: (exit status, stderr).

        Args:
            sink: is given the output as it arrives; none of it is logged.

        Raises:
            UnreachableError: no connection, or it broke.
        """
        pieces = (stdin,) if stdin else ()
        code, _, stderr = self._shell(
            machine, command, pieces, secret_output=True, timeout=timeout, sink=sink
        )
        return code, stderr

    def _shell(
        self,
        machine: Machine,
        command: str,
        stdin: Iterable[bytes],
        *,
        secret_output: bool = False,
        timeout: float | None = None,
        sink: Callable[[bytes], object] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> tuple[int, str, str]:
        link = self._links[machine.name]
        raw, pieces = link.as_root(command, stdin)
        try:
            answer = link.run(
                raw,
                stdin=pieces,
                timeout=timeout or self.timeout,
                secret_output=secret_output,
                sink=sink,
                on_line=on_line,
            )
        except TimeoutError as error:
            raise UnreachableError(
                f"a command on {machine.name} did not end: {error}",
                hint="See what the machine is busy with: "
                f"clusterctl ssh {self.cluster.inventory} {machine.name}",
            ) from error
        return answer.code, answer.stdout, answer.stderr

    @contextmanager
    def _state(self, machines: Sequence[Machine], *, check_for_changes: bool) -> Iterator[State]:
        """A fresh State on the kept connections, in pyinfra's contexts; all put back at the end."""
        hosts = [(machine.name, _data(machine)) for machine in machines]
        inventory = Inventory((hosts, {}))  # type: ignore[no-untyped-call]
        config = Config(PARALLEL=max(len(machines), 1))  # type: ignore[no-untyped-call]
        state = State(inventory, config, check_for_changes=check_for_changes)
        # Both mean that output has been shown already: it is in the run's log, once is enough.
        state.print_output = state.print_fact_output = True
        for host in inventory:
            host.connector = _Connector(state, host, self._links[host.name], self)
        state.set_stage(StateStage.Connect)
        try:
            yield state
        finally:
            state.pool.kill(timeout=GRACE)


# pyinfra's contexts for the State and the inventory are those of the process. It reads them only
# while a deploy is called, not while operations are executed (there are other contexts for that,
# of one greenlet each). So deploys of two phases are called one after the other.
_calling = BoundedSemaphore()


@contextmanager
def _called(state: State) -> Iterator[None]:
    """While a deploy is called: pyinfra's contexts have this State."""
    with _calling:
        ctx_state.set(state)  # type: ignore[no-untyped-call]
        ctx_inventory.set(state.inventory)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            ctx_state.reset()
            ctx_inventory.reset()


def _execute(
    state: State,
    outcomes: dict[Host, float | Failure],
    progress: Progress,
    finished: Callable[[str, MachineResult], None] | None,
) -> dict[Host, float | Failure]:
    """Carry out the operations on the machines where there is no failure yet."""

    def execute(host: Host) -> float | Failure:
        begun = time.monotonic()
        connector = _connector(host)
        connector.progress = partial(progress.update, host.name)
        for op_hash in host.op_hash_order:
            connector.step = ""
            progress.update(host.name, _name(state, op_hash))
            if not run_host_op(state, host, op_hash):
                return _failure(state, host, op_hash)
        seconds = time.monotonic() - begun
        if finished:
            finished(host.name, MachineResult(tuple(_operations(state, host)), seconds))
        return seconds

    state.set_stage(StateStage.Execute)
    state.is_executing = True
    ready = [host for host, outcome in outcomes.items() if not isinstance(outcome, Failure)]
    return {
        host: _expected(host, "execute", outcome) if isinstance(outcome, Exception) else outcome
        for host, outcome in _each(state, ready, execute).items()
    }


def _each(
    state: State, hosts: Sequence[Host], function: Callable[[Host], T]
) -> dict[Host, T | Exception]:
    """The function on all hosts at once, in pyinfra's contexts: what it returned or raised."""

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


def _sure(outcome: T | Exception) -> T:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _connector(host: Host) -> _Connector:
    assert isinstance(host.connector, _Connector)  # noqa: S101  put there by _state
    return host.connector


def _data(machine: Machine) -> dict[str, Any]:
    data: dict[str, Any] = {"ssh_hostname": machine.ssh.hostname, "_sudo": machine.ssh.sudo}
    if machine.ssh.sudo_password is not None:
        data["_sudo_password"] = machine.ssh.sudo_password
    return data


def _name(state: State, op_hash: str) -> str:
    return ", ".join(sorted(state.get_op_meta(op_hash).names)) or "operation"


def _operations(state: State, host: Host) -> Iterator[OperationResult]:
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
    connector = _connector(host)
    journal = [line.removeprefix(JOURNAL) for line in meta.stderr_lines if line.startswith(JOURNAL)]
    others = [line for line in meta.stderr_lines if not line.startswith(JOURNAL)]
    code = connector.answer.code if connector.answer else None
    silent = f"exit status {code}" if code else "the operation failed; the log has more"
    name = _name(state, op_hash)
    return Failure(
        machine=host.name,
        step=f"{name}: {connector.step}" if connector.step else name,
        cause=last_lines("\n".join(others)) or last_lines(meta.stdout) or silent,
        journal="\n".join(journal),
        hint=connector.error.hint if connector.error else "",
    )


def _unprepared(host: Host, error: Exception) -> Failure:
    connector = _connector(host)
    if connector.error is not None:
        step = "connect" if isinstance(error, ConnectError) else "prepare"
        return Failure(host.name, step, connector.error.message, hint=connector.error.hint)
    return _expected(host, "prepare", error)


def _expected(host: Host, step: str, error: Exception) -> Failure:
    """A failure of this machine, or the error itself if it is a mistake of ours."""
    if isinstance(error, (PyinfraError, ClusterctlError)):
        hint = error.hint if isinstance(error, ClusterctlError) else ""
        return Failure(host.name, step, str(error) or type(error).__name__, hint=hint)
    raise error


def _unfetched(connector: _Connector, text: str) -> Fetched:
    if connector.error is None:
        return Fetched("", text)
    off = isinstance(connector.error, UnreachableError) and connector.error.off
    return Fetched("", connector.error.message, connector.error.hint, off)


def _lines(stdin: object) -> Iterable[bytes]:
    """What pyinfra calls `_stdin`, as pyinfra sends it: each item ends with a newline."""
    if stdin is None:
        return ()
    items = [stdin] if isinstance(stdin, str) else list(stdin)  # type: ignore[call-overload]
    return [(item if item.endswith("\n") else f"{item}\n").encode() for item in items]


def _split(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def _ignore(text: str) -> None:
    """Nobody listens."""
