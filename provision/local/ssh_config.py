"""How OpenSSH would reach a machine: `ssh -G` is the only reader of ssh_config.

One process for each machine or bastion, once in a run: about 10 ms each.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from provision.model.cluster import Ssh
from provision.model.errors import ClusterctlError

_MOST_HOPS = 16  # more is a loop
_TIMEOUT = 30  # seconds; `Match exec` and the canonicalisation of names may take long
# The user if neither the inventory nor ssh_config names one.
_DEFAULT_USER = "root"
_USERS_CONFIG = ".ssh/config"
_SYSTEM_CONFIG = "/etc/ssh/ssh_config"
_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?P<host>\[[^]]+\]|[^:]+)(?::(?P<port>\d+))?/?")


@dataclass(frozen=True)
class Route:
    """What ssh_config says about one machine or bastion.

    Attributes:
        alias: the name that `ssh -G` got.
        hostname: where SSH connects to.
        key_name: the name of its host key in known_hosts files.
        identities: private key files, or public ones whose private half the agent has.
        identities_only: whether SSH offers no other keys of the agent.
        agent: the agent's socket; empty: SSH_AUTH_SOCK; `none`: no agent.
        known_hosts: the user's files; empty: OpenSSH's own choice.
        system_known_hosts: the system's files; empty: OpenSSH's own choice.
        revoked: the file of `RevokedHostKeys`.
        hops: the bastions on the way, in the order of the connections.
        proxy_command: a program that makes the connection; its tokens are not expanded. With hops
            it makes the connection to the first.
    """

    alias: str
    hostname: str
    port: int
    user: str
    key_name: str
    identities: tuple[Path, ...]
    certificates: tuple[Path, ...]
    identities_only: bool
    agent: str
    known_hosts: tuple[Path, ...]
    system_known_hosts: tuple[Path, ...]
    family: socket.AddressFamily
    revoked: Path | None = None
    hops: tuple[Route, ...] = ()
    proxy_command: str = ""

    def __str__(self) -> str:
        return self.alias if self.alias == self.hostname else f"{self.alias} ({self.hostname})"


_cache: dict[tuple[object, ...], Route] = {}


def settle(ssh: Ssh, given: Iterable[str]) -> Ssh:
    """Take port and user from ssh_config, unless the inventory gives them.

    Args:
        given: the fields that the inventory sets.

    Raises:
        ClusterctlError: ssh_config cannot be used.
    """
    user = ssh.user if "user" in given else ""
    port = ssh.port if "port" in given else 0
    route = _routed(ssh.hostname, user, port, ssh.config_file)
    settled = ssh.model_copy(update={"user": route.user, "port": route.port})
    _cache[_key(settled)] = route
    return settled


def resolve(ssh: Ssh) -> Route:
    """Find the route to a machine. Port and user are the machine's own.

    Raises:
        ClusterctlError: ssh_config cannot be used.
    """
    key = _key(ssh)
    if key not in _cache:
        _cache[key] = _routed(ssh.hostname, ssh.user, ssh.port, ssh.config_file)
    return _cache[key]


def resolve_all(machines: Iterable[Ssh]) -> list[Route]:
    """Find the routes to machines, several at a time."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(resolve, machines))


def program(ssh: Ssh, *options: str, hop: Route) -> list[str]:
    """Give the `ssh` command to a bastion, up to its name. It never asks the operator."""
    argv = [
        "ssh",
        *(("-F", str(ssh.config_file)) if ssh.config_file else ()),
        "-l", hop.user, "-p", str(hop.port),
        "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=INFO",
        "-o", "ClearAllForwardings=yes", "-o", "ForwardAgent=no", "-o", "ForwardX11=no",
        "-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no", "-o", "RequestTTY=no",
        "-o", "ServerAliveInterval=15", "-o", "ConnectTimeout=10",
    ]  # fmt: skip
    if ssh.known_hosts_file:
        users = hop.known_hosts or tuple(_home() / f".ssh/known_hosts{n}" for n in ("", "2"))
        argv += ["-o", known_hosts_option(ssh.known_hosts_file, *users)]
    if ssh.key:
        # Any -i takes the place of the default keys.
        keys = (*(key for key in hop.identities if key.is_file()), ssh.key)
        argv += [word for key in keys for word in ("-i", _literal(key))]
    return [*argv, *options]


def known_hosts_option(*files: Path) -> str:
    """Give the option that names the user's known_hosts files. Blanks and `%` in paths are kept."""
    return "UserKnownHostsFile=" + " ".join(f'"{_literal(file)}"' for file in files)


def carry(ssh: Ssh, hops: tuple[Route, ...], proxy_command: str, *options: str) -> list[str]:
    """Give the `ssh` command to the last of the hops, through those before it."""
    *before, last = hops
    proxy = proxy_command
    if before:
        inner = carry(ssh, tuple(before), proxy_command)
        name = inner.pop()
        proxy = f"{shlex.join(inner).replace('%', '%%')} -W '[%h]:%p' {shlex.quote(name)}"
    return [*program(ssh, "-o", f"ProxyCommand={proxy or 'none'}", *options, hop=last), last.alias]


def expanded(route: Route) -> str:
    """Give the ProxyCommand for a shell. Source of the tokens: ssh_config(5)."""
    values = {
        "h": route.hostname,
        "n": route.alias,
        "p": str(route.port),
        "r": route.user,
        "k": route.key_name,
    }
    return f"exec {_tokens(route.proxy_command, values)}"


def _key(ssh: Ssh) -> tuple[object, ...]:
    file = ssh.config_file or _home() / _USERS_CONFIG
    changed = file.stat().st_mtime_ns if file.exists() else 0
    return (ssh.hostname, ssh.user, ssh.port, ssh.config_file, changed)


def _routed(name: str, user: str, port: int, config: Path | None, depth: int = 0) -> Route:
    if depth > _MOST_HOPS:
        message = f"ssh_config leads to {name} through more than {_MOST_HOPS} bastions"
        raise ClusterctlError(message, hint="Does a ProxyJump lead to itself? Add ProxyJump none.")
    options = _ask(name, user, port, config)
    route = _route(name, options)
    hops: tuple[Route, ...] = ()
    proxy = _one(options, "proxycommand")
    for jump in filter(None, _one(options, "proxyjump").split(",")):
        match = _HOP.fullmatch(jump)
        if match is None:
            raise ClusterctlError(f"ProxyJump of {name} names no host: {jump!r}")
        host, port = match["host"].strip("[]"), int(match["port"] or 0)
        hop = _routed(host, match["user"] or "", port, config, depth + 1)
        # ssh connects to the first by its own part of ssh_config, to the others through the first.
        hops += (*(() if hops else hop.hops), replace(hop, hops=(), proxy_command=""))
        proxy = proxy if len(hops) > 1 and proxy else hop.proxy_command
    return replace(route, hops=hops, proxy_command="" if proxy == "none" else proxy)


def _route(name: str, options: Mapping[str, list[str]]) -> Route:
    hostname, port = _one(options, "hostname"), int(_one(options, "port"))
    if _one(options, "proxyusefdpass") == "yes":
        message = f"ssh_config sets ProxyUseFdpass for {name}, which clusterctl cannot use"
        raise ClusterctlError(message, hint="Use ProxyJump, or a ProxyCommand that passes data.")
    values = {
        "d": str(_home()),
        "h": hostname,
        "n": name,
        "p": str(port),
        "r": _one(options, "user"),
        "u": pwd.getpwuid(os.getuid()).pw_name,
        "i": str(os.getuid()),
        "l": socket.gethostname(),
        "L": socket.gethostname().split(".")[0],
    }
    agent = _one(options, "identityagent")
    families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
    alias = _one(options, "hostkeyalias")
    host = hostname.lower()
    return Route(
        alias=name,
        hostname=hostname,
        port=port,
        user=_one(options, "user"),
        key_name=alias or (host if port == 22 else f"[{host}]:{port}"),
        identities=tuple(_path(file, values) for file in options.get("identityfile", ())),
        certificates=tuple(_path(file, values) for file in options.get("certificatefile", ())),
        identities_only=_one(options, "identitiesonly") == "yes",
        agent="" if agent == "SSH_AUTH_SOCK" else _agent(agent, values),
        known_hosts=_files(_one(options, "userknownhostsfile"), _home() / ".ssh/known_hosts"),
        system_known_hosts=_files(
            _one(options, "globalknownhostsfile"), Path("/etc/ssh/ssh_known_hosts")
        ),
        revoked=_path(revoked, values) if (revoked := _one(options, "revokedhostkeys")) else None,
        family=families.get(_one(options, "addressfamily"), socket.AF_UNSPEC),
    )


def _ask(name: str, user: str, port: int, config: Path | None) -> dict[str, list[str]]:
    own = pwd.getpwuid(os.getuid()).pw_name
    options = _run(name, user, port, config)
    if user or _one(options, "user") != own or own == _DEFAULT_USER:
        return options
    # Does ssh_config name this user, or does nothing name a user? The first value counts.
    with tempfile.NamedTemporaryFile("w", prefix="clusterctl-ssh-") as file:
        included = [config] if config else [_home() / _USERS_CONFIG, Path(_SYSTEM_CONFIG)]
        for path in included:
            file.write(f'Match all\nInclude "{path}"\n')
        file.write(f"Match all\nUser {_DEFAULT_USER}\n")
        file.flush()
        user = _one(_run(name, "", port, Path(file.name)), "user")
    return {**options, "user": [user]}


def _run(name: str, user: str, port: int, config: Path | None) -> dict[str, list[str]]:
    argv = [
        "ssh", "-G", "-T",
        *(("-F", str(config)) if config else ()),
        *(("-l", user) if user else ()),
        *(("-p", str(port)) if port else ()),
        "--", name,
    ]  # fmt: skip
    shown = shlex.join(argv)
    try:
        done = subprocess.run(
            argv, capture_output=True, check=False, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        message = "this computer has no program ssh"
        raise ClusterctlError(message, hint="Install the OpenSSH client.") from error
    except subprocess.TimeoutExpired as error:
        message = f"ssh_config was not read within {_TIMEOUT} s"
        raise ClusterctlError(message, hint=f"Which Match exec is slow? Try: {shown}") from error
    if done.returncode != 0:
        cause = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise ClusterctlError(
            f"OpenSSH cannot use the ssh_config for {name}: {cause}",
            hint=f"Correct it until this works: {shown}",
        )
    options: dict[str, list[str]] = {}
    for line in done.stdout.decode(errors="surrogateescape").splitlines():
        keyword, _, value = line.partition(" ")
        options.setdefault(keyword.lower(), []).append(value)
    return options


def _one(options: Mapping[str, list[str]], keyword: str) -> str:
    return options.get(keyword, [""])[0]


def _files(value: str, default: Path) -> tuple[Path, ...]:
    """Split the list of files. ssh prints no quotes around a name with a blank."""
    files = tuple(Path(name) for name in re.split(r" (?=[/~])", value) if name != "none")
    if value == "none":
        return (Path(os.devnull),)
    own = (default, default.with_name(f"{default.name}2"))
    return () if tuple(file.expanduser() for file in files) == own else files


def _agent(value: str, values: Mapping[str, str]) -> str:
    if value in {"", "none"}:
        return value
    if value.startswith("$") and not value.startswith("${"):
        return os.environ.get(value[1:], "none")
    return str(_path(value, values))


def _path(text: str, values: Mapping[str, str]) -> Path:
    return Path(_tokens(re.sub(r"\$\{(\w+)\}", _variable, text), values)).expanduser()


def _variable(match: re.Match[str]) -> str:
    return os.environ.get(match[1], "")


def _tokens(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda m: "%" if m[1] == "%" else values.get(m[1], m[0]), text)


def _literal(path: Path) -> str:
    """Give a path for an option in which ssh expands tokens."""
    return str(path).replace("%", "%%")


def _home() -> Path:
    """Give the home directory that OpenSSH uses. OpenSSH ignores HOME."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir)
