"""`kubeconfig`, `ssh`, `kubectl`: access to the cluster and its machines."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from provision.cli.console import err
from provision.cli.options import Inventory
from provision.cli.progress import progress
from provision.model.commands import clusterctl
from provision.model.errors import ClusterctlError, RefusedError, UnreachableError
from provision.model.shell import for_any_login_shell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provision.apply.dial import Dialer
    from provision.model.cluster import Cluster, Machine, Ssh

# What follows `--` is the command that runs on the machine.
REST = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer()


@app.command(epilog="Example: clusterctl kubeconfig inventories/ha.py --merge")
def kubeconfig(
    inventory: Inventory,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the kubeconfig to this file.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add it to $KUBECONFIG, or to ~/.kube/config.")
    ] = False,
    ttl: Annotated[
        float, typer.Option(help="Hours until the kubeconfig expires.", min=0.02, max=87600)
    ] = 18.0,
    user: Annotated[
        str, typer.Option(help="The user's name, for the audit log. Default: your login name.")
    ] = "",
) -> None:
    """Make a kubeconfig for an administrator. It expires after `--ttl` hours."""
    from provision.apply.session import open_session
    from provision.commands.access_tokens import service_account_token
    from provision.local import private_file
    from provision.pki import kubeconfig as kubeconfigs
    from provision.pki import table
    from provision.pki.authority import Authority
    from provision.pki.leaf import issue

    if user.startswith("system:"):
        message = "--user: Kubernetes reserves names that begin with system:"
        raise typer.BadParameter(message)
    if output and merge:
        message = "--output and --merge exclude each other"
        raise typer.BadParameter(message)
    with open_session(inventory, progress()) as session:
        look = session.observe()
        trust = session.known_trust(look)
        if trust is None:
            message = f"the cluster {session.cluster.name} does not exist yet"
            raise RefusedError(message, hint=clusterctl("up", inventory))
        name = user or getpass.getuser()
        if session.cluster.certificates.external:
            credentials = {
                "token": service_account_token(session, look, name, timedelta(hours=ttl))
            }
        else:
            leaf = table.user(name, ("clusterctl:admins",), ttl)
            issued = issue(leaf, trust, datetime.now(UTC))
            credentials = kubeconfigs.by_certificate(issued.certificate, issued.key)
        content = kubeconfigs.embedded(
            server=session.cluster.endpoint,
            ca_pem=trust.bundle(Authority.KUBERNETES),
            credentials=credentials,
            user=f"{name}@{session.cluster.name}",
            cluster_name=session.cluster.name,
            context=session.cluster.name,
        )
    if merge:
        first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        target = Path(first) if first else Path.home() / ".kube" / "config"
        existing = target.read_text() if target.exists() else None
        private_file.write(target, kubeconfigs.merge(existing, content))
        err.print(f"added to {target} as the context {session.cluster.name}", soft_wrap=True)
    elif output:
        private_file.write(output, content)
        err.print(f"written to {output}; it expires in {ttl:g} hours", soft_wrap=True)
    else:
        sys.stdout.write(content.decode())


@app.command(
    epilog="Example: clusterctl ssh inventories/ha.py m1 -- journalctl -u etcd -n 20",
    context_settings=REST,
)
def ssh(
    context: typer.Context,
    inventory: Inventory,
    machine: Annotated[
        str, typer.Argument(metavar="MACHINE", help="The machine's name in the inventory.")
    ],
) -> None:
    """Open a root shell on a machine. After `--`: run this command there instead, as root."""
    command = context.args[1:] if context.args[:1] == ["--"] else context.args
    cluster, known_hosts = _located(inventory)
    try:
        target = cluster.machine(machine)
    except KeyError:
        names = ", ".join(m.name for m in cluster.machines)
        message = f"{inventory} has no machine {machine!r}"
        raise RefusedError(message, hint=f"its machines: {names}") from None
    _run(target, known_hosts, shlex.join(command) if command else "")


@app.command(
    epilog="Example: clusterctl kubectl inventories/ha.py -- get pods -A", context_settings=REST
)
def kubectl(context: typer.Context, inventory: Inventory) -> None:
    """Run kubectl on a master, as administrator. This computer needs no kubectl.

    clusterctl sends files and directories that the command names (-f, -k, --from-file, cp) from
    this computer to the master, and removes them there at the end. Commands that listen
    (port-forward, proxy) do so on the master: for them use your own kubectl and `clusterctl
    kubeconfig`.
    """
    from provision.cli import kubectl_files
    from provision.desired.components.control_plane import KUBECTL

    arguments = context.args[1:] if context.args[:1] == ["--"] else context.args
    paths, files = kubectl_files.named(arguments)
    cluster, known_hosts = _located(inventory)
    master = _answering(cluster.masters)
    if master is None:
        message = f"no master of {cluster.name} answers on its SSH port"
        raise UnreachableError(message, hint=clusterctl("machines", "list", inventory))
    # The master's kubeconfig uses the loopback proxy, which finds an apiserver that is ready.
    if not paths:
        _run(master, known_hosts, f"{KUBECTL} {shlex.join(arguments)}")
    root = _send(master, known_hosts, files)
    command = shlex.join(kubectl_files.rewritten(arguments, paths, root))
    remove = f"trap 'rm -rf {root}' EXIT; trap 'exit 130' INT; trap 'exit 129' HUP"
    go = f"cd {shlex.quote(root + str(Path.cwd()))}"
    _run(master, known_hosts, f"{remove}; {go} && {KUBECTL} {command}")


_UNPACK = """
find /run -maxdepth 1 -name 'clusterctl-kubectl.*' -mmin +1440 -exec rm -rf {} +
d=$(mktemp -d /run/clusterctl-kubectl.XXXXXX) || exit
trap 'rm -rf "$d"' EXIT
trap 'exit 1' HUP INT PIPE TERM
tar -x -C "$d" && echo "$d" && trap - EXIT
"""


def _send(machine: Machine, known_hosts: Path, files: set[Path]) -> str:
    """Send files to a new temporary directory in a machine's memory. Returns its path.

    The machine removes the directory if it does not get all files, and removes directories older
    than a day: this program may have been killed before it ran kubectl.

    Raises:
        RefusedError: the files are too large.
        UnreachableError: they could not be sent.
    """
    import subprocess
    import tempfile

    from provision.cli import kubectl_files

    with tempfile.TemporaryFile() as archive:
        if machine.ssh.sudo and machine.ssh.sudo_password is not None:
            archive.write(_with_password(machine.ssh, "true")[1])
        kubectl_files.pack(files, archive)
        archive.seek(0)
        done = subprocess.run(
            _ssh_command(machine, known_hosts, _UNPACK, terminal=False),
            stdin=archive,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    root = done.stdout.strip()
    if done.returncode or not root.startswith("/run/"):
        message = f"the files could not be sent to {machine.name}"
        raise UnreachableError(message, hint="the message of OpenSSH is above")
    return root


def _located(inventory: Path) -> tuple[Cluster, Path]:
    from provision.inventory import read
    from provision.machines import Cloud
    from provision.machines.locate import absent, locate
    from provision.machines.sources import source_of

    draft = read(inventory)
    source = source_of(draft)
    missing = absent(source, draft) if isinstance(source, Cloud) else source.missing(draft)
    cluster, _, hosts = locate(source, draft)
    if {machine.name for machine in cluster.machines} <= set(missing):
        message = f"no machine of {cluster.name} is running"
        raise RefusedError(message, hint=clusterctl("up", inventory))
    return cluster, hosts


def _answering(masters: Sequence[Machine]) -> Machine | None:
    """Find the first master whose SSH server answers, else one whose bastion refuses: OpenSSH says
    why. None: no master answers.
    """
    from provision.apply.dial import Dialer, HopError

    refused = None
    with closing(Dialer()) as dialer:
        for master in masters:
            try:
                if _answers(dialer, master.ssh, only=len(masters) == 1):
                    return master
            except HopError:
                refused = refused or master
    return refused


def _answers(dialer: Dialer, target: Ssh, *, only: bool) -> bool:
    """Whether the SSH server answers.

    Args:
        only: there is no other master. Behind a bastion, OpenSSH itself then asks it.

    Raises:
        HopError: the bastion refuses.
    """
    from provision.local import ssh_config

    route = ssh_config.resolve(target)
    indirect = bool(route.hops or route.proxy_command)
    if indirect and only:
        return True
    timeout = 10 if indirect else 2
    try:
        with closing(dialer.open(target, route, timeout)) as stream:
            stream.sock.settimeout(timeout)
            # A frozen machine's kernel still accepts; its SSH server does not greet.
            return stream.sock.recv(4) == b"SSH-"
    except OSError:
        return False


def _ssh_command(
    machine: Machine, known_hosts: Path, command: str, *, terminal: bool = True
) -> list[str]:
    from provision.local import openssh

    target = machine.ssh
    options = ("-t",) if terminal and sys.stdin.isatty() and sys.stdout.isatty() else ()
    arguments = openssh.command(target, known_hosts, "-o", "ServerAliveInterval=15", *options)
    if command and target.sudo:
        inner = f"sh -c {shlex.quote(command)}"
        asks = options or target.sudo_password is None
        command = f"sudo -- {inner}" if asks else _with_password(target, inner)[0]
    if command:
        arguments.append(for_any_login_shell(command))
    elif target.sudo:
        arguments.append("sudo -i")
    return arguments


def _with_password(target: Ssh, command: str) -> tuple[str, bytes]:
    """Give the command with sudo, and the input that sudo reads before the command's input."""
    from provision.apply.ssh import with_sudo_password

    assert target.sudo_password is not None  # noqa: S101  the caller has checked
    line, head = with_sudo_password(command, target.sudo_password, ())
    return line, b"".join(head)


def _run(machine: Machine, known_hosts: Path, command: str) -> None:
    """Run a command on a machine as root, in the place of this program.

    With a terminal, sudo asks there. Without a terminal, sudo gets the inventory's password.
    """
    arguments = _ssh_command(machine, known_hosts, command)
    target = machine.ssh
    if not command or "-t" in arguments or not target.sudo or target.sudo_password is None:
        _exec(arguments)
    raise typer.Exit(_fed(arguments, _with_password(target, "true")[1]))


def _exec(command: list[str]) -> NoReturn:
    if shutil.which(command[0]) is None:
        message = f"this computer has no program {command[0]}"
        raise ClusterctlError(message, hint="install the OpenSSH client")
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - ssh takes over, with this terminal


def _fed(arguments: list[str], head: bytes) -> int:
    """Run a program with the input `head`, then this program's input. Returns its exit code."""
    import subprocess

    beginning, end = os.pipe()
    # The pipe is empty and holds more than a password.
    os.write(end, head)
    os.close(end)
    with subprocess.Popen(arguments, stdin=subprocess.PIPE) as program:
        feed = subprocess.Popen(
            ["cat", f"/dev/fd/{beginning}", "-"], stdout=program.stdin, pass_fds=(beginning,)
        )
        os.close(beginning)
        assert program.stdin is not None  # noqa: S101  it is a pipe
        program.stdin.close()
        try:
            return program.wait()
        finally:
            feed.terminate()
            feed.wait()
