"""Why a machine runs no command: the error of the connection or of sudo, in words. Pure."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import paramiko
from pyinfra.api.exceptions import PyinfraError

from provision.apply import login
from provision.apply.dial import DroppedError, HopError
from provision.apply.host_keys import Expected
from provision.apply.login import EndedError
from provision.local import known_hosts
from provision.local.ssh_config import Route, known_hosts_option
from provision.model.cluster import Cluster, Machine, Ssh
from provision.model.commands import clusterctl, shell
from provision.model.errors import UnreachableError

_SUDO = re.compile(r"^sudo(-rs)?: |: sudo: (command )?not found|is not in the sudoers file", re.M)


def explain(
    cluster: Cluster, machine: Machine, route: Route, error: Exception, file: Path, timeout: int
) -> UnreachableError:
    """Say why the connection failed, and what to do.

    Args:
        route: where SSH connects to.
        error: what the attempt to connect raised.
        file: clusterctl's copy of the known host keys.
        timeout: the limit of the attempt, in seconds.
    """
    where = f"{machine.name} ({route.hostname}:{route.port})"
    return (
        _stopped_on_the_way(machine, route, error, where)
        or _distrusted(cluster, machine, route, error, file, where)
        or _login_refused(machine, route, error, where)
        or _silent(machine, route, error, timeout, where)
        or UnreachableError(
            f"no SSH connection to {where}: {str(error) or type(error).__name__}",
            hint=f"Try: {by_hand(machine.ssh)}",
            off=isinstance(error, (OSError, EOFError)),
        )
    )


def by_hand(ssh: Ssh, *options: str) -> str:
    """Give the `ssh` command that connects as clusterctl does."""
    config = ("-F", ssh.config_file) if ssh.config_file else ()
    key = ("-i", ssh.key) if ssh.key else ()
    return shell("ssh", *config, *key, *options, "-p", ssh.port, f"{ssh.user}@{ssh.hostname}")


def _learn(machine: Machine) -> str:
    """Give the `ssh` command that asks about a host key, and writes it to the file that clusterctl
    reads.
    """
    file = machine.ssh.known_hosts_file
    return by_hand(machine.ssh, *(("-o", known_hosts_option(file)) if file else ()))


def _read(machine: Machine, route: Route) -> str:
    return ", ".join(map(str, known_hosts.own_files(machine.ssh, route)))


def _forget(cluster: Cluster, machine: Machine, route: Route, file: Path) -> str:
    """Say how to replace the known keys of a machine, in the file or setting that has them."""
    if machine.ssh.host_key and cluster.source.makes_machines:
        return clusterctl("node", "replace", cluster.inventory, machine.name)
    if machine.ssh.host_key:
        return "correct `ssh_host_key` in the inventory"
    name, found = known_hosts.sources(machine.ssh, route)
    ways = [
        shell("ssh-keygen", "-R", name, "-f", source)
        if all(entry.plain for entry in lines.values())
        else f"correct line {', '.join(map(str, lines))} of {source}"
        for source, lines in (found or {file: {}}).items()
    ]
    return f"{'; '.join(ways)}; then connect once: {_learn(machine)}"


def _stopped_on_the_way(
    machine: Machine, route: Route, error: Exception, where: str
) -> UnreachableError | None:
    """A bastion refused, or a host closed the connection early."""
    hint = f"Try: {by_hand(machine.ssh)}"
    if isinstance(error, HopError) and error.beyond:
        return UnreachableError(
            f"{where}: {error.reason.lower()}, says {error.hop}",
            hint="Is the machine on, is sshd running there, and is `ssh_port` right?",
            off=True,
        )
    if isinstance(error, HopError) and "host key is known for" in error.reason:
        return UnreachableError(
            f"the host key of {error.hop} on the way to {where} is not known",
            hint=f"Compare its fingerprint with the bastion's. Then connect once: "
            f"{_learn(machine)}",
        )
    if isinstance(error, HopError):
        return UnreachableError(
            f"{error.hop} on the way to {where} refused: {error.reason}", hint=hint
        )
    if isinstance(error, DroppedError):
        return UnreachableError(
            f"{where} closed each new connection before SSH began",
            hint=f"Does its sshd have too many new connections (MaxStartups), or is this computer "
            f"blocked there? {hint}",
        )
    if isinstance(error, EndedError):
        return UnreachableError(
            f"{where} ended the connection before it accepted "
            f"{route.user}: clusterctl offered too many keys, or the machine refuses this login",
            hint="Set `ssh_key` in the inventory: then clusterctl offers only that key. "
            f"{shell('ssh-add', '-l')} lists the keys of your agent.",
        )
    return None


def _distrusted(
    cluster: Cluster, machine: Machine, route: Route, error: Exception, file: Path, where: str
) -> UnreachableError | None:
    """The machine's host key is not the known one, or none is known."""
    expected = getattr(error, "expected_key", None)
    if isinstance(error, paramiko.BadHostKeyException) and isinstance(expected, Expected):
        if expected.revokes(error.key.asbytes()):
            return UnreachableError(
                f"{where} shows a host key that is revoked (@revoked in a known_hosts "
                "file, or RevokedHostKeys in ssh_config): "
                f"SHA256:{error.key.fingerprint.removeprefix('SHA256:')}",
                hint="The key may be stolen. Give the machine a new host key and remove the old "
                "one from known_hosts and from ssh_host_key in the inventory.",
            )
        return UnreachableError(
            f"{where} shows another host key than the known one: "
            f"SHA256:{error.key.fingerprint.removeprefix('SHA256:')}",
            hint="Either the machine was made anew, or another computer answers in its place. Find "
            f"out which. If the new key is right: {_forget(cluster, machine, route, file)}",
        )
    if "not found in known_hosts" in str(error) and known_hosts.certified(machine.ssh, route):
        file_there = "/etc/ssh/ssh_host_ed25519_key.pub"
        return UnreachableError(
            f"{where} is known only by its certificate (@cert-authority), which clusterctl cannot "
            "check",
            hint="OpenSSH can. Set `ssh_host_key` in the inventory to the key that this prints: "
            f"{by_hand(machine.ssh)} cat {file_there}",
        )
    if "not found in known_hosts" in str(error):
        return UnreachableError(
            f"the host key of {where} is not known: {_read(machine, route)} have no key for "
            f"{route.key_name}",
            hint="Connect once, and compare the fingerprint with the machine's: "
            f"{_learn(machine)}; or set `ssh_host_key` in the inventory",
        )
    return None


def _login_refused(
    machine: Machine, route: Route, error: Exception, where: str
) -> UnreachableError | None:
    """The machine refuses the user, or the user's key cannot be used."""
    ssh = machine.ssh
    if isinstance(error, paramiko.AuthenticationException):
        key = f"the key {ssh.key}" if ssh.key else "any key of your SSH agent or ~/.ssh"
        means = "the password" if ssh.password and not ssh.key else key
        on_tokens = [file for file in route.identities if not ssh.key and login.is_fido(file)]
        token = f" {', '.join(map(str, on_tokens))}: FIDO keys work only through an agent: "
        return UnreachableError(
            f"{where} refused {route.user} with {means}",
            hint=f"Is `ssh_user` right, and is that key in {route.user}'s authorized_keys?"
            + (f"{token}{shell('ssh-add', *on_tokens)}" if on_tokens else ""),
        )
    if isinstance(error, PyinfraError):
        return UnreachableError(
            f"the key for {machine.name} cannot be used: {error}", hint=_usable(ssh, error)
        )
    return None


def _usable(ssh: Ssh, error: Exception) -> str:
    """Say how to make the inventory's key usable."""
    assert ssh.key is not None  # noqa: S101  it was read
    private = ssh.key.with_suffix("") if ssh.key.suffix == ".pub" else ssh.key
    add = f"add the key to your agent: {shell('ssh-add', private)}"
    if login.is_fido(ssh.key):
        return f"Only an agent can use it: {add}"
    if "encrypted" in str(error) or "password" in str(error):
        return f"Correct `ssh_key_password` in the inventory, or {add}"
    if ssh.key.suffix == ".pub":
        return f"`ssh_key` is a public key: use the private key, or {add}"
    return f"Correct `ssh_key`. OpenSSH reads the key if this works: {_shows(ssh.key)}"


def _shows(key: Path) -> str:
    return shell("ssh-keygen", "-y", "-f", key)


def _silent(
    machine: Machine, route: Route, error: Exception, timeout: int, where: str
) -> UnreachableError | None:
    """The machine is not found, does not answer, or does not answer as an SSH server does."""
    if isinstance(error, socket.gaierror):
        return UnreachableError(
            f"the name {route.hostname} of {machine.name} does not resolve: {error.strerror}",
            hint="Correct `ssh_hostname`, or give an address.",
        )
    if isinstance(error, TimeoutError):
        return UnreachableError(
            f"{where} did not answer within {timeout} s",
            hint="Is the machine on, and does a firewall let SSH through?",
            off=True,
        )
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        cause = "; ".join(sorted({e.args[-1] for e in error.errors.values()}))
        return UnreachableError(
            f"{where}: {cause.lower()}",
            hint="Is the machine on, is sshd running there, and is `ssh_port` right?",
            off=True,
        )
    # When the time for the key exchange has run out, paramiko goes on reading without a session.
    signs = ("protocol banner", "protocol version", "existing session")
    if any(sign in str(error) for sign in signs):
        return UnreachableError(
            f"{where} takes the connection and does not answer as SSH servers do",
            hint="Is `ssh_port` right? Or is the machine frozen, or overloaded?",
            off=True,
        )
    return None


def no_more_sessions(machine: Machine) -> UnreachableError:
    """The machine works, but its sshd allows no further command on the connection."""
    return UnreachableError(
        f"{machine.name} refused one more session on its SSH connection (MaxSessions)",
        hint=f"On the machine, as root, {shell('sshd', '-T')} shows the limit (maxsessions). Set "
        "MaxSessions 10 or more in /etc/ssh/sshd_config, then: "
        f"{shell('systemctl', 'reload', 'sshd')}",
    )


def raise_if_no_shell(machine: Machine, stdout: str) -> None:
    """Check that the user's login shell runs commands.

    Raises:
        UnreachableError: it does not.
    """
    if "account is currently not available" not in stdout:
        return
    user = machine.ssh.user
    raise UnreachableError(
        f"{user} logs in to {machine.name}, but has no shell there (nologin)",
        hint="Set another `ssh_user`, or give this user a shell. On the machine, as root: "
        f"{shell('usermod', '-s', '/bin/sh', user)}",
    )


def raise_if_sudo_refused(machine: Machine, stderr: str) -> None:
    """Find out whether sudo failed, and not the command that it should have run.

    Args:
        stderr: what the failed command wrote.

    Raises:
        UnreachableError: sudo failed; the hint says what to do.
    """
    if not _SUDO.search(stderr):
        return
    ssh = machine.ssh
    who = f"{ssh.user} on {machine.name}"
    if "incorrect password" in stderr or "Sorry, try again" in stderr:
        raise UnreachableError(
            f"sudo refused the password of {who}", hint="Correct `sudo_password`."
        )
    if "not found" in stderr:
        raise UnreachableError(
            f"there is no sudo on {machine.name}",
            hint=f"Install sudo there and give {ssh.user} a rule, or log in as root.",
        )
    if "not in the sudoers" in stderr or "may not run sudo" in stderr:
        raise UnreachableError(
            f"{who} may not use sudo",
            hint=f"Add a rule for {ssh.user}: `{ssh.user} ALL=(ALL) NOPASSWD: ALL`.",
        )
    if "must have a tty" in stderr:
        raise UnreachableError(
            f"sudo on {machine.name} runs only on a tty (requiretty)",
            hint=f"Add to the sudoers file there: `Defaults:{ssh.user} !requiretty`.",
        )
    if "password" in stderr or "interactive authentication" in stderr:
        raise UnreachableError(
            f"sudo wants a password of {who}",
            hint="Give `sudo_password` in the inventory, or on the machine the rule "
            f"`{ssh.user} ALL=(ALL) NOPASSWD: ALL`.",
        )
