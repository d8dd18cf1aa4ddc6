"""Run one phase on its machines. The only module that makes pyinfra's State.

Each phase gets its own State, which is single-use and identifies operations by their index. The SSH
connections stay open from phase to phase. Every machine runs the phase's operations at its own
pace, and a machine that fails does not stop the others. Several phases may run at the same time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import gevent
import pyinfra
from pyinfra.api.config import Config
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.facts import get_fact
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State, StateStage

from provision.apply.connector import Connector, connector_of
from provision.apply.dial import Dialer
from provision.apply.operating import (
    MachineResult,
    called,
    each,
    execute,
    operations,
    unprepared,
)
from provision.apply.operations.raw import Raw
from provision.apply.ssh import Link, Metrics, chunks, last_lines
from provision.local.progress import Progress, Silent
from provision.local.runlog import RunLog
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.errors import Failure, PhaseError, UnreachableError

GRACE = 2  # seconds that greenlets get to end after Ctrl-C


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


class Engine:
    """Connections to a cluster's machines and what runs over them.

    Args:
        cluster: whose machines.
        known_hosts: the file with the host keys; clusterctl adds none to it.
        log: of the run.
        timeout: seconds that one command may take, unless the call gives its own limit.
    """

    def __init__(
        self, cluster: Cluster, known_hosts: Path, log: RunLog | None, timeout: int = 600
    ) -> None:
        self.cluster = cluster
        self.timeout = timeout
        self.metrics = Metrics()
        self.log = log
        self._known_hosts = known_hosts
        self._dialer = Dialer()
        self._links = {
            m.name: Link(m, cluster, known_hosts, log, self.metrics, self._dialer)
            for m in cluster.machines
        }
        self._handler: logging.Handler = log.handler() if log else logging.NullHandler()

    def __enter__(self) -> Self:
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
        self._dialer.close()

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
            progress: shows every operation; the caller begins and ends the phase.
            finished: called at once for each machine on which all operations have succeeded.
            dry: only find out what would change.

        Raises:
            PhaseError: with the failures of all machines.
        """
        started = time.monotonic()
        progress = progress or Silent()
        with self._state(machines, check_for_changes=dry) as state:
            outcomes = self._prepare(state, deploy)
            if not dry:
                outcomes |= execute(state, outcomes, progress, finished)
            results = {
                host.name: MachineResult(tuple(operations(state, host)), outcome)
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
        """Connect, and call the deploy, which adds the operations of each machine."""

        def connect(host: Host) -> None:
            host.connect(show_errors=False, raise_exceptions=True)
            state.activate_host(host)

        def call(host: Host) -> None:
            deploy(self.cluster.machine(host.name))

        state.set_stage(StateStage.Prepare)
        problems = each(state, list(state.inventory), connect)
        connected = [host for host, problem in problems.items() if problem is None]
        with called(state):
            problems |= each(state, connected, call)
        return {
            host: 0.0 if problem is None else unprepared(host, problem)
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

        A machine that cannot be reached gets an entry with the error.

        Args:
            command: the shell program for a machine.
            machines: those that run it.
            secret: keep the output out of the log.
        """
        with self._state(machines, check_for_changes=False) as state:

            def ask(host: Host) -> Fetched:
                connector = connector_of(host)
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
            answers = each(state, list(state.inventory), ask)
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
            UnreachableError: there is no connection, it broke, or the command did not end in time.
        """
        if stdin and not secret_stdin and self.log:
            self.log.note(machine.name, f"stdin of the next:\n{stdin.decode(errors='replace')}")
        pieces = (stdin,) if stdin else ()
        return self._shell(machine, command, pieces, secret_output=secret_output, timeout=timeout)

    def connect_anew(self, machine: Machine) -> None:
        """Open and close one more connection, to check that the machine accepts it.

        Raises:
            UnreachableError: with the cause.
        """
        link = Link(machine, self.cluster, self._known_hosts, self.log, Metrics(), self._dialer)
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
        """Feed data to a command that runs as root: (exit status, stdout, stderr).

        Args:
            machine: where the command runs.
            command: for `sh`; reads stdin.
            source: a file, or files and bytes that are sent one after the other.
            sent: called with the number of bytes sent so far, about once per MiB.
            heard: called with each line of stdout when it arrives.
            timeout: seconds until the command must have ended.

        Raises:
            UnreachableError: there is no connection, it broke, or the command did not end in time.
            ClusterctlError: the source could not be read on this computer.
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
        """Run a command whose output is data on one machine, as root: (exit status, stderr).

        Args:
            sink: called with pieces of the output as they arrive; none of it is logged.

        Raises:
            UnreachableError: there is no connection, it broke, or the command did not end in time.
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
                f"{clusterctl('ssh', self.cluster.inventory, machine.name)}",
            ) from error
        return answer.code, answer.stdout, answer.stderr

    @contextmanager
    def _state(self, machines: Sequence[Machine], *, check_for_changes: bool) -> Iterator[State]:
        """A new State on the open connections; its greenlets are ended with the block."""
        hosts = [(machine.name, _data(machine)) for machine in machines]
        inventory = Inventory((hosts, {}))  # type: ignore[no-untyped-call]
        config = Config(PARALLEL=max(len(machines), 1))  # type: ignore[no-untyped-call]
        state = State(inventory, config, check_for_changes=check_for_changes)
        # Both tell pyinfra that output has been shown already: the run's log has it.
        state.print_output = state.print_fact_output = True
        for host in inventory:
            host.connector = Connector(
                state, host, self._links[host.name], self.cluster, self.timeout
            )
        state.set_stage(StateStage.Connect)
        try:
            yield state
        finally:
            state.pool.kill(timeout=GRACE)


def _sure(outcome: Fetched | Exception) -> Fetched:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _data(machine: Machine) -> dict[str, Any]:
    data: dict[str, Any] = {"ssh_hostname": machine.ssh.hostname, "_sudo": machine.ssh.sudo}
    if machine.ssh.sudo_password is not None:
        data["_sudo_password"] = machine.ssh.sudo_password
    return data


def _unfetched(connector: Connector, text: str) -> Fetched:
    if connector.error is None:
        return Fetched("", text)
    off = isinstance(connector.error, UnreachableError) and connector.error.off
    return Fetched("", connector.error.message, connector.error.hint, off)
