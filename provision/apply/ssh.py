"""One SSH connection to a machine, kept from phase to phase. The engine's only way to a machine.

paramiko makes the connection, by the route that OpenSSH reads from ssh_config. This module adds:
host keys are verified against one file and never added to it, the operator is never asked, a dead
peer is noticed, stdin is binary, sudo's password is in no argument list, and every refusal is an
error that says what to do.
"""

from __future__ import annotations

import random
import shlex
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import paramiko
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors.ssh_util import _patch_paramiko_sk_key_support

from provision.apply import host_keys, refusals
from provision.apply.dial import Dialer, DroppedError, HopError, Stream
from provision.apply.login import Login
from provision.local import ssh_config
from provision.local.runlog import RunLog
from provision.local.ssh_config import Route
from provision.model.cluster import Cluster, Machine
from provision.model.errors import ClusterctlError, UnreachableError
from provision.model.shell import for_any_login_shell

CONNECT_TIMEOUT = 10
KEEPALIVE = 15
UNACKNOWLEDGED = 30_000  # ms until a peer that acknowledges nothing counts as dead
WINDOW = 16 << 20
CHUNK = 1 << 20
# Seconds between attempts after a host closed a connection before SSH began.
PAUSES = (0.5, 1, 2, 4, 4)
# Seconds between attempts after a machine refused one more session: another command may end soon.
SESSION_PAUSES = (0.2, 0.5, 1, 2, 4)
_LAST_LINES = 12

# Sent after sudo's password: if sudo does not read the password, the command must not get it.
_PASSWORD_END = "clusterctl-password-end"  # noqa: S105  # pragma: allowlist secret


# Without it, a FIDO key in the agent ends the login: paramiko issue 2462.
_patch_paramiko_sk_key_support()


@dataclass
class Metrics:
    """What a run has cost so far.

    Attributes:
        round_trips: SSH channels opened, by machine.
        sent: bytes fed to commands, by machine.
        phases: (name, wall seconds) in the order they ran.
    """

    round_trips: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    phases: list[tuple[str, float]] = field(default_factory=list)


class _Source:
    """The stdin of a command, in pieces.

    Attributes:
        sent: bytes, so far.
        error: why no more could be read on this computer.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.sent = 0
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._pieces:
                yield piece
                self.sent += len(piece)
        except Exception as error:  # noqa: BLE001  the command's caller raises it
            self.error = error


@dataclass(frozen=True)
class Answer:
    """What a command answered.

    Attributes:
        sent_at: when the command was sent, seconds since 1970 by the operator's clock.
        received_at: when the first of its output arrived.
    """

    code: int
    stdout: str
    stderr: str
    sent_at: float
    received_at: float


class _Transport(paramiko.Transport):
    """Counts its channels, has a window fit for bulk, and notices a dead peer."""

    # AES-GCM needs no separate HMAC: half the operator's CPU when pushing artifacts.
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
    )

    def __init__(self, sock: Any, *, opened: Callable[[], None], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(sock, default_window_size=WINDOW, **kwargs)
        self._opened = opened
        if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)

    def open_channel(self, *args: Any, **kwargs: Any) -> paramiko.Channel:  # noqa: ANN401
        channel = super().open_channel(*args, **kwargs)
        self._opened()
        return channel


class Link:
    """The connection to one machine: opened when first needed, and again if it has died."""

    def __init__(
        self,
        machine: Machine,
        cluster: Cluster,
        known_hosts: Path,
        log: RunLog | None,
        metrics: Metrics,
        dialer: Dialer,
    ) -> None:
        self.machine = machine
        self._cluster = cluster
        self._dialer = dialer
        self._stream: Stream | None = None
        self._known_hosts = known_hosts
        self._log = log
        self._metrics = metrics
        self._client: paramiko.SSHClient | None = None
        self._lock = threading.Lock()

    @property
    def connected(self) -> bool:
        transport = self._client.get_transport() if self._client else None
        return transport is not None and transport.is_active()

    def client(self) -> paramiko.SSHClient:
        """The connected client.

        Raises:
            UnreachableError: with the cause and what to do about it.
        """
        with self._lock:
            if not self.connected:
                self.close()
                self._client = self._connect()
            assert self._client is not None  # noqa: S101  for mypy
            return self._client

    def close(self) -> None:
        # Closing lets other greenlets run, which may connect again: take both before.
        client, stream, self._client, self._stream = self._client, self._stream, None, None
        if client is not None:
            client.close()
        if stream is not None:
            stream.close()

    def run(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] = (),
        timeout: float,
        on_line: Callable[[str], None] | None = None,
        shown: str | None = None,
        secret_output: bool = False,
        pty: bool = False,
        sink: Callable[[bytes], object] | None = None,
    ) -> Answer:
        """Run a command as the login user, on one channel.

        Args:
            command: for the user's login shell.
            stdin: pieces, sent as fast as the machine takes them.
            timeout: seconds until the command must have ended.
            on_line: called with each line of stdout when it arrives.
            shown: what the log shows instead of the command.
            secret_output: keep the output out of the log.
            pty: give the command a terminal.
            sink: called with stdout as it arrives, as bytes; the answer's stdout is then empty.

        Raises:
            UnreachableError: there is no connection, or it broke, or sudo refused the command.
            TimeoutError: the command did not end in time.
            ClusterctlError: the data for stdin could not be read on this computer.
        """
        tag = self._log.command(self.machine.name, shown or command) if self._log else ""
        started = time.monotonic()
        source = _Source(stdin)
        try:
            answer = self._exchange(command, source, timeout, on_line, pty, sink)
        except (OSError, EOFError, paramiko.SSHException, UnreachableError) as error:
            if self._log:
                self._log.note(tag, f"{type(error).__name__}: {error}")
            if error is source.error:
                message = f"what {self.machine.name} is sent cannot be read here: {error}"
                hint = "Correct that on this computer, then run it again."
                raise ClusterctlError(message, hint=hint) from error
            if isinstance(error, (UnreachableError, TimeoutError)):
                raise
            message = f"the connection to {self.machine.name} broke: {error}"
            hint = "Is the machine up? Then run it again."
            raise UnreachableError(message, hint=hint, off=True) from error
        finally:
            self._metrics.sent[self.machine.name] += len(command) + source.sent
        if self._log:
            self._log.result(
                tag,
                code=answer.code,
                stdout="(not logged)" if secret_output else answer.stdout,
                stderr=answer.stderr,
                sent=source.sent,
                seconds=time.monotonic() - started,
            )
        if answer.code != 0:
            refusals.raise_if_no_shell(self.machine, answer.stdout)
        if self.machine.ssh.sudo and answer.code != 0:
            refusals.raise_if_sudo_refused(self.machine, answer.stderr)
        return answer

    def as_root(self, command: str, stdin: Iterable[bytes] = ()) -> tuple[str, Iterable[bytes]]:
        """The command and its stdin as they must be sent for `sh` to run it as root."""
        inner = f"sh -c {shlex.quote(command)}"
        ssh = self.machine.ssh
        if not ssh.sudo:
            return inner, stdin
        if ssh.sudo_password is None:
            return f"sudo -n -H {inner}", stdin
        return with_sudo_password(inner, ssh.sudo_password, stdin)

    def _exchange(
        self,
        command: str,
        source: _Source,
        timeout: float,
        on_line: Callable[[str], None] | None,
        pty: bool,
        sink: Callable[[bytes], object] | None,
    ) -> Answer:
        channel = self._open_session()
        helpers: list[gevent.Greenlet] = []
        try:
            with gevent.Timeout(timeout, TimeoutError(f"no end after {timeout:.0f} s")):
                if pty:
                    channel.get_pty()
                sent_at = time.time()
                channel.exec_command(for_any_login_shell(command))
                errors = gevent.spawn(_drain, channel.recv_stderr)
                helpers = [errors, gevent.spawn(_feed, channel, source)]
                output, received_at = _receive(channel, on_line, sink)
                if source.error:
                    raise source.error
                code = channel.recv_exit_status()
                stderr = bytes(errors.get())
                if code == -1:
                    raise UnreachableError(
                        f"the connection to {self.machine.name} broke while a command ran",
                        hint="Is the machine up? Then run it again.",
                    )
        finally:
            channel.close()
            gevent.killall(helpers, block=False)
        return Answer(
            code,
            output.decode(errors="replace"),
            stderr.decode(errors="replace"),
            sent_at,
            received_at,
        )

    def _open_session(self) -> paramiko.Channel:
        client = self.client()
        try:
            return self._session(client)
        except (paramiko.SSHException, EOFError, OSError):
            # The connection died unnoticed. No command ran on it, so one more try is safe.
            with self._lock:
                if self._client is client:
                    self.close()
            return self._session(self.client())

    def _session(self, client: paramiko.SSHClient) -> paramiko.Channel:
        """Open a session on a connection that other commands may be using.

        Raises:
            UnreachableError: the machine refuses one more session. The connection stays open.
            TimeoutError, EOFError, SSHException: the connection is dead.
        """
        transport = client.get_transport()
        assert transport is not None  # noqa: S101  a connected client has one
        for pause in (*SESSION_PAUSES, None):
            try:
                with gevent.Timeout(CONNECT_TIMEOUT, TimeoutError("no session was opened")):
                    return transport.open_session()
            except paramiko.SSHException as error:
                # For refusals at the same time, paramiko raises ChannelException only once.
                if not transport.is_active():
                    raise
                if pause is None:
                    raise refusals.no_more_sessions(self.machine) from error
                gevent.sleep(pause)
        raise AssertionError  # the last pause is None

    def _connect(self) -> paramiko.SSHClient:
        try:
            route = ssh_config.resolve(self.machine.ssh)
        except ClusterctlError as error:
            raise UnreachableError(error.message, hint=error.hint) from error
        for pause in (*PAUSES, None):
            try:
                return self._attempt(route)
            except (DroppedError, HopError) as error:
                if pause is None or not getattr(error, "dropped", True):
                    raise self._refusal(route, error) from error
                # Machines that were dropped together do not come back together.
                gevent.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            except (OSError, EOFError, paramiko.SSHException, PyinfraError) as error:
                raise self._refusal(route, error) from error
        raise AssertionError  # the last pause is None

    def _refusal(self, route: Route, error: Exception) -> UnreachableError:
        refusal = refusals.explain(
            self._cluster, self.machine, route, error, self._known_hosts, CONNECT_TIMEOUT
        )
        if self._log:
            self._log.note(self.machine.name, refusal.message)
        return refusal

    def _attempt(self, route: Route) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        host_keys.judge(client, self._known_hosts, route)
        ssh = self.machine.ssh
        login = Login(ssh, route)
        opened = partial(self._metrics.round_trips.update, [self.machine.name])
        with self._dialer.slot(route):
            stream = self._dialer.open(ssh, route, CONNECT_TIMEOUT)
            try:
                client.connect(
                    route.hostname,
                    port=route.port,
                    username=route.user,
                    sock=stream.sock,
                    timeout=CONNECT_TIMEOUT,
                    banner_timeout=CONNECT_TIMEOUT,
                    auth_timeout=CONNECT_TIMEOUT,
                    auth_strategy=login,
                    transport_factory=partial(_Transport, opened=opened),
                )
            except (OSError, EOFError, paramiko.SSHException, PyinfraError) as error:
                began = client.get_transport()
                encrypted = began is not None and began.session_id is not None
                silent = isinstance(error.__context__, TimeoutError)
                closed = isinstance(error.__context__, (EOFError, ConnectionError))
                client.close()
                failure = None if encrypted else stream.failure()
                stream.close()
                if failure is not None:
                    raise failure from error
                if not encrypted and closed:
                    raise DroppedError(str(error)) from error
                if silent and stream.process:
                    raise TimeoutError from error
                raise
            except BaseException:
                client.close()
                stream.close()
                raise
        self._stream = stream
        transport = client.get_transport()
        assert transport is not None  # noqa: S101  a connected client has one
        transport.set_keepalive(KEEPALIVE)
        return client


def _receive(
    channel: paramiko.Channel,
    on_line: Callable[[str], None] | None,
    sink: Callable[[bytes], object] | None,
) -> tuple[bytes, float]:
    """Read standard output to its end: (what no sink took, the time when the first bytes came)."""
    received_at = 0.0
    output = bytearray()
    seen = 0
    while data := channel.recv(CHUNK):
        received_at = received_at or time.time()
        if sink:
            sink(data)
            continue
        output += data
        if on_line and (end := output.rfind(b"\n") + 1) > seen:
            for line in output[seen:end].decode(errors="replace").splitlines():
                on_line(line)
            seen = end
    return bytes(output), received_at or time.time()


def with_sudo_password(
    command: str, password: str, stdin: Iterable[bytes], user: str = "root"
) -> tuple[str, Iterable[bytes]]:
    """The command run by sudo, which reads the password as the first line of stdin.

    pyinfra sets an environment variable on a command line instead. Every user of the machine can
    read that line in `ps`.
    """
    skip = f'while IFS= read -r line && [ "$line" != {_PASSWORD_END} ]; do :; done; unset line; '
    run = shlex.quote(f"{skip}exec {command}")

    def pieces() -> Iterator[bytes]:
        yield f"{password}\n{_PASSWORD_END}\n".encode()
        yield from stdin

    return f"sudo -S -k -p '' -H -u {shlex.quote(user)} sh -c {run}", pieces()


def last_lines(text: str) -> str:
    """The last lines of a command's output: as much as a person reads."""
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])


def chunks(path: Path) -> Iterator[bytes]:
    """A file's content in pieces of 1 MiB."""
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def _feed(channel: paramiko.Channel, source: _Source) -> None:
    try:
        for piece in source:
            view = memoryview(piece)
            while view:
                view = view[channel.send(view) :]  # type: ignore[arg-type]
            gevent.sleep(0)
        if source.error:
            channel.close()
        else:
            channel.shutdown_write()
    except OSError:
        # The command ended before it read all: its exit status says whether that is an error.
        return


def _drain(receive: Callable[[int], bytes]) -> bytearray:
    output = bytearray()
    while data := receive(CHUNK):
        output += data
    return output
