"""The byte stream under an SSH connection: direct, through bastions, or from a ProxyCommand.

OpenSSH connects to the bastions, so it checks each bastion as `ssh` does. All machines behind a
bastion share one connection to it. A host gets only a few new connections at a time, because sshd
drops those above its MaxStartups.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import paramiko

from provision.local import ssh_config
from provision.local.ssh_config import Route
from provision.model.cluster import Ssh

AT_ONCE = 8  # new connections to one host
SHARED_TIMEOUT = 30  # seconds: the limit for the connection to the last bastion

# Ends the program when this process ends, even if it is killed: then the program's stdin closes.
_WHILE_STDIN = 'exec 3<&0; { cat <&3 >/dev/null; kill "$$"; } 2>/dev/null & exec "$@" </dev/null'
_DROPPED = re.compile(
    r"kex_exchange_identification|banner exchange|Connection (closed|reset) by|"
    r"Broken pipe|Exceeded MaxStartups|Not allowed at this time"
)
_NOISE = re.compile(
    r"^(\*\* WARNING|Warning: Permanently|Pseudo-terminal|Control socket|mux_client|"
    r"Connection closed by UNKNOWN|Connection to UNKNOWN|kex_exchange_identification)"
)
_REFUSED = "Stdio forwarding request failed"
_FROM_LAST = re.compile(r"open failed: connect failed|open failed: unknown")


class DroppedError(paramiko.SSHException):
    """The connection was closed before SSH began: the host may have too many new
    connections.
    """


class HopError(paramiko.SSHException):
    """A bastion, or the program of a ProxyCommand, failed to make the connection.

    Attributes:
        hop: the name of the bastion or program.
        reason: its message, or the message of `ssh`.
        dropped: a later attempt may succeed.
        beyond: the last bastion works, and says that the machine does not answer.
    """

    def __init__(
        self, hop: str, reason: str, *, dropped: bool = False, beyond: bool = False
    ) -> None:
        super().__init__(f"{hop}: {reason}")
        self.hop = hop
        self.reason = reason
        self.dropped = dropped
        self.beyond = beyond


@dataclass
class Stream:
    """A socket, and the program that carries its bytes.

    Attributes:
        route: the route to the machine.
        process: None for a direct connection.
        errors: what the program writes to stderr.
    """

    route: Route
    sock: socket.socket
    process: subprocess.Popen[bytes] | None = None
    errors: IO[bytes] | None = None
    shared: _Shared | None = None
    since: int = 0

    def failure(self) -> HopError | None:
        """Give the error of the route itself, if its program wrote one."""
        if self.process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        text = _text(self.errors)
        if self.shared is not None and _REFUSED in text:
            # The program of the shared connection printed the reason before.
            text = _text(self.shared.errors, self.since).rpartition("\n")[2]
        running = self.process.poll() is None
        if running and not text:
            return None
        return _hop_error(self.route, text, self.process.poll())

    def close(self) -> None:
        self.sock.close()
        if self.process is not None:
            _end(self.process)
        if self.errors is not None:
            self.errors.close()


@dataclass
class _Shared:
    """The connection to a bastion, shared by the connections to all machines behind it."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    control: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        _end(self.process)
        self.errors.close()


@dataclass
class Dialer:
    """Makes the SSH byte streams of a run."""

    _slots: dict[object, threading.BoundedSemaphore] = field(default_factory=dict)
    _shared: dict[object, _Shared] = field(default_factory=dict)
    _locks: dict[object, threading.Lock] = field(default_factory=dict)
    _failed: dict[object, tuple[float, HopError]] = field(default_factory=dict)
    _folder: str = ""

    @contextmanager
    def slot(self, route: Route) -> Iterator[None]:
        """Wait until the host may get one more new connection."""
        hops = tuple(hop.alias for hop in route.hops)
        if route.proxy_command and not hops:
            # The host that limits new connections is unknown: all share one limit.
            key = (hops, route.proxy_command, "")
        else:
            key = (hops, "", route.hostname)
        with self._slots.setdefault(key, threading.BoundedSemaphore(AT_ONCE)):
            yield

    def open(self, ssh: Ssh, route: Route, timeout: float) -> Stream:
        """Connect to a machine's SSH port.

        Raises:
            OSError: a direct connection failed.
            HopError: a bastion failed.
        """
        if route.hops:
            shared = self._share(ssh, route)
            # The last ClearAllForwardings counts for -W too, so -W makes its own.
            options = ("-o", "ControlMaster=no", "-S", str(shared.control))
            argv = ssh_config.carry(ssh, route.hops, route.proxy_command, *options)
            name = argv.pop()
            target = f"[{route.hostname}]:{route.port}"
            return self._carried(route, [*argv, "-W", target, name], shared)
        if route.proxy_command:
            shell = os.environ.get("SHELL") or "/bin/sh"
            return self._carried(route, [shell, "-c", ssh_config.expanded(route)])
        return Stream(route, _connected(route, timeout))

    def close(self) -> None:
        """End the connections to bastions."""
        shared, self._shared = self._shared, {}
        for connection in shared.values():
            connection.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def _carried(self, route: Route, argv: list[str], shared: _Shared | None = None) -> Stream:
        ours, theirs = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115  the stream closes it
        since = os.fstat(shared.errors.fileno()).st_size if shared else 0
        try:
            # In a session of its own it has no terminal to ask on, and Ctrl-C does not end it.
            process = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=errors,
                start_new_session=True,
            )
        except OSError:
            ours.close()
            errors.close()
            raise
        finally:
            theirs.close()
        return Stream(route, ours, process, errors, shared, since)

    def _share(self, ssh: Ssh, route: Route) -> _Shared:
        key = (ssh.config_file, ssh.known_hosts_file, ssh.key, route.hops, route.proxy_command)
        asked = time.monotonic()
        with self._locks.setdefault(key, threading.Lock()):
            failed_at, failure = self._failed.get(key, (0.0, None))
            if failure and failed_at > asked:
                # One attempt answers for all machines that waited for it.
                raise failure
            known = self._shared.get(key)
            if known and known.alive:
                return known
            if known:
                known.close()
                del self._shared[key]
            self._folder = self._folder or tempfile.mkdtemp(prefix="clusterctl-", dir="/tmp")
            control = Path(self._folder) / f"{list(self._locks).index(key)}"
            control.unlink(missing_ok=True)
            try:
                shared = self._start(ssh, route, control)
            except HopError as error:
                self._failed[key] = time.monotonic(), error
                raise
            self._shared[key] = shared
            return shared

    def _start(self, ssh: Ssh, route: Route, control: Path) -> _Shared:
        options = ("-N", "-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-S", str(control))
        argv = ssh_config.carry(ssh, route.hops, route.proxy_command, *options)
        errors = tempfile.TemporaryFile()  # noqa: SIM115  the connection closes it
        process = subprocess.Popen(
            ["sh", "-c", _WHILE_STDIN, "sh", *argv],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )  # fmt: skip
        shared = _Shared(process, errors, control)
        deadline = time.monotonic() + SHARED_TIMEOUT
        while not control.exists():
            late = time.monotonic() > deadline
            if late or not shared.alive:
                text = _text(errors)
                code = process.poll()
                shared.close()
                raise _hop_error(route, text or ("it did not answer" if late else ""), code)
            time.sleep(0.02)
        return shared


def _connected(route: Route, timeout: float) -> socket.socket:
    failed: dict[tuple[str, int] | tuple[str, int, int, int], Exception] = {}
    for family, kind, protocol, _, address in socket.getaddrinfo(
        route.hostname, route.port, route.family, socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except TimeoutError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            failed[str(address[0]), route.port] = error
        else:
            return sock
    raise paramiko.ssh_exception.NoValidConnectionsError(failed)


def _hop_error(route: Route, text: str, code: int | None) -> HopError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not _NOISE.match(line)] or lines
    reason = told[0].removeprefix("ssh: ") if told else f"it ended with exit status {code}"
    if "HOST IDENTIFICATION HAS CHANGED" in text:
        reason = "it shows another host key than the known one"
    if not route.hops:
        name = "the ProxyCommand"
    else:
        named = [h for h in route.hops if any(h.alias in li or h.hostname in li for li in told)]
        name = f"the bastion {(named or route.hops[-1:])[0]}"
    beyond = bool(_FROM_LAST.search(text))
    if beyond:
        reason = reason.partition("connect failed: ")[2] or reason
    return HopError(
        name,
        reason,
        beyond=beyond,
        dropped=not beyond and (not told or bool(_DROPPED.search(text))),
    )


def _text(file: IO[bytes] | None, since: int = 0) -> str:
    if file is None:
        return ""
    # pread: the program writes with the same file offset.
    return os.pread(file.fileno(), 1 << 16, since).decode(errors="replace").strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(2)
