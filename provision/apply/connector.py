"""pyinfra's connector, on a connection that outlives its State."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput, OutputLine, make_unix_command

from provision.apply.install import COMPONENT, SAY
from provision.apply.ssh import Answer, Link, with_sudo_password
from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.errors import ClusterctlError, UnreachableError


class Connector(SSHConnector):
    """pyinfra's SSH connector, on a connection that outlives its State."""

    def __init__(
        self, state: State, host: Host, link: Link, cluster: Cluster, timeout: int
    ) -> None:
        super().__init__(state, host)
        self.link = link
        self.cluster = cluster
        self.timeout = timeout
        self.answer: Answer | None = None
        self.error: ClusterctlError | None = None
        self.progress: Callable[[str], None] = _ignore
        self.component = self.step = ""
        self.secret_output = False

    def connect(self) -> None:
        try:
            self.client = self.link.client()  # type: ignore[assignment]  # pyinfra uses paramiko's part
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
        timeout = arguments.pop("_timeout", None) or self.timeout
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
                f"{clusterctl('ssh', self.cluster.inventory, self.host.name)}",
            )
            return False, CommandOutput([OutputLine("stderr", str(error))])
        lines = [OutputLine("stdout", line) for line in _split(self.answer.stdout)]
        lines += [OutputLine("stderr", line) for line in _split(self.answer.stderr)]
        return self.answer.code in success, CommandOutput(lines)

    def _hear(self, line: str) -> None:
        if line.startswith(COMPONENT):
            self.component, self.step = line.removeprefix(COMPONENT), ""
        elif line.startswith(SAY):
            self.step = line.removeprefix(SAY)
            self.progress(f"{self.component}: {self.step}" if self.component else self.step)


def connector_of(host: Host) -> Connector:
    """The connector that the engine gave this host."""
    assert isinstance(host.connector, Connector)  # noqa: S101
    return host.connector


def _lines(stdin: object) -> Iterable[bytes]:
    """The argument `_stdin`, as pyinfra sends it: each item ends with a newline."""
    if stdin is None:
        return ()
    items = [stdin] if isinstance(stdin, str) else list(stdin)  # type: ignore[call-overload]
    return [(item if item.endswith("\n") else f"{item}\n").encode() for item in items]


def _split(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def _ignore(text: str) -> None:
    """Report nothing."""
