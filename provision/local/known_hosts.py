"""The host keys of a cluster's machines, in one known_hosts file, and OpenSSH's rules to read it.

Source of the rules: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT, and OpenSSH's sshconnect.c.
"""

from __future__ import annotations

import binascii
import re
import subprocess
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from paramiko.hostkeys import HostKeys

from provision.local import private_file, ssh_config
from provision.local.ssh_config import Route
from provision.model.cluster import Ssh

USERS_OWN = (Path("~/.ssh/known_hosts"), Path("~/.ssh/known_hosts2"))
SYSTEM = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
REVOKED = "@revoked"
_KRL = b"SSHKRL\n\0"
_PORT = re.compile(r"\[(.+)\]:[0-9]+")
_MARKERS = ("", "@cert-authority", REVOKED)


@dataclass(frozen=True)
class Entry:
    """A line of a known_hosts file.

    Attributes:
        marker: empty, `@cert-authority` or `@revoked`.
        names: the comma-separated patterns, or one hashed name.
        kind: the key's type, such as `ssh-ed25519`.
        key: the public key, in SSH's wire format.
    """

    marker: str
    names: str
    kind: str
    key: bytes

    def line(self, name: str) -> str:
        """Give the line that says the same about this name alone."""
        return " ".join(
            [*filter(None, [self.marker]), name, self.kind, b64encode(self.key).decode()]
        )

    @property
    def plain(self) -> bool:
        """Whether `ssh-keygen -R` can remove the line: its names have no wildcards."""
        return not set(self.names) & set("*?!")

    def matches(self, host: str) -> bool:
        """Whether the line matches this host, under the name `Route.key_name`."""
        host = host.lower()
        if self.names.startswith("|"):
            return _hashed(self.names, host)
        found = False
        for pattern in self.names.lower().split(","):
            if _fits(host, pattern.removeprefix("!")):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


@dataclass(frozen=True)
class Known:
    """What known_hosts files say about one host."""

    keys: tuple[Entry, ...]
    revoked: frozenset[bytes]

    def accepts(self, key: bytes) -> bool:
        """Whether a server with this key is the host. A revoked key never is."""
        return key not in self.revoked and any(entry.key == key for entry in self.keys)


def write(machines: Iterable[Ssh], path: Path) -> Path:
    """Write the file, 0600. A reader sees the old content or the new.

    A pinned machine has its pinned key and no other. A machine without a pin has the keys that its
    own files have for it: `known_hosts_file` (else the user's) and the system's. Each line names
    one machine, so no machine is accepted with a key from another machine's files. Lines that
    revoke a key count in every file, and for pinned machines too.

    Returns:
        `path`.
    """
    machines = tuple(machines)
    routes = list(zip(machines, ssh_config.resolve_all(machines), strict=True))
    pinned = {route.key_name: ssh.host_key for ssh, route in routes if ssh.host_key}
    lines = [f"{host} {' '.join(key.split()[:2])}" for host, key in pinned.items()]
    files = {file for ssh, route in routes for file in (*users_own(), *SYSTEM, *_files(ssh, route))}
    entries = {file: list(_entries(file)) for file in sorted(files)}
    revoked = [e for found in entries.values() for e in found if e.marker == REVOKED]
    for ssh, route in routes:
        name = route.key_name
        if name in pinned:
            lines += [entry.line(name) for entry in revoked if entry.matches(name)]
            continue
        own = [e for file in _files(ssh, route) for e in entries[file] if e.marker != REVOKED]
        lines += [entry.line(name) for entry in _about([*own, *revoked], name)]
    private_file.write(path, "".join(f"{line}\n" for line in dict.fromkeys(lines)).encode())
    return path


def certified(ssh: Ssh, route: Route) -> bool:
    """Whether only `@cert-authority` lines match a machine."""
    entries = (entry for file in _files(ssh, route) for entry in _entries(file))
    return any(e.marker == "@cert-authority" and e.matches(route.key_name) for e in entries)


def own_files(ssh: Ssh, route: Route) -> tuple[Path, ...]:
    """Give the user's files for a machine: the inventory's, ssh_config's or the default files."""
    if ssh.known_hosts_file:
        return (ssh.known_hosts_file,)
    return route.known_hosts or users_own()


def sources(ssh: Ssh, route: Route) -> tuple[str, Mapping[Path, Mapping[int, Entry]]]:
    """Find the lines that match a machine without a pinned key.

    Returns:
        The name under which the machine is known, and file -> number of the line -> entry.
    """
    plain = _PORT.fullmatch(route.key_name)
    for name in (route.key_name, *((plain[1],) if plain else ())):
        found: dict[Path, dict[int, Entry]] = {}
        for file in _files(ssh, route):
            lines = _numbered(file)
            if about := {n: e for n, e in lines if not e.marker and e.matches(name)}:
                found[file] = about
        if found:
            return name, found
    return route.key_name, {}


def is_revoked(file: Path | None, key: bytes) -> bool:
    """Whether the file of `RevokedHostKeys` revokes a key. Source: sshkey_check_revoked in OpenSSH.

    As in OpenSSH, a file that cannot be read revokes every key.
    """
    if file is None:
        return False
    try:
        content = file.read_bytes()
    except OSError:
        return True
    if not content.startswith(_KRL):
        words = (word for line in content.split(b"\n") if line[:1] != b"#" for word in line.split())
        return b64encode(key) in words
    kind = key[4 : 4 + int.from_bytes(key[:4], "big")].decode()
    with tempfile.NamedTemporaryFile("w", prefix="clusterctl-key-") as public:
        public.write(f"{kind} {b64encode(key).decode()}\n")
        public.flush()
        argv = ["ssh-keygen", "-Q", "-f", str(file), public.name]
        return subprocess.run(argv, check=False, capture_output=True).returncode != 0


def users_own() -> tuple[Path, ...]:
    """Give the user's files, whether or not they exist."""
    return tuple(file.expanduser() for file in USERS_OWN)


def lookup(files: Iterable[Path], host: str) -> Known:
    """Find what the files say about a host, under the name `Route.key_name`.

    As in OpenSSH, a host at another port than 22 is also known by its name without the port, if no
    key is known under the name with the port.
    """
    found = _about([entry for file in files for entry in _entries(file)], host)
    return Known(
        tuple(entry for entry in found if not entry.marker),
        frozenset(entry.key for entry in found if entry.marker == REVOKED),
    )


def _about(entries: list[Entry], host: str) -> list[Entry]:
    found = [entry for entry in entries if entry.matches(host)]
    plain = _PORT.fullmatch(host)
    if plain and all(entry.marker for entry in found):
        found += [entry for entry in entries if entry.matches(plain[1])]
    return found


def _files(ssh: Ssh, route: Route) -> tuple[Path, ...]:
    return (*own_files(ssh, route), *(route.system_known_hosts or SYSTEM))


def _entries(file: Path) -> Iterator[Entry]:
    """Give the lines that are entries. OpenSSH too skips all other lines."""
    return (entry for _, entry in _numbered(file))


def _numbered(file: Path) -> Iterator[tuple[int, Entry]]:
    if not file.is_file():
        return
    for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1):
        if entry := _entry(line.strip()):
            yield number, entry


def _entry(line: str) -> Entry | None:
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if marker not in _MARKERS or len(words) < 3 or words[0].startswith("#"):
        return None
    names, kind, text = words[:3]
    try:
        key = b64decode(text)
    except (binascii.Error, ValueError):
        return None
    # SSH's wire format begins with the type, as a string with its length in four bytes.
    if key[4 : 4 + int.from_bytes(key[:4], "big")] != kind.encode():
        return None
    return Entry(marker, names, kind, key)


def _hashed(pattern: str, host: str) -> bool:
    try:
        return HostKeys.hash_host(host, pattern) == pattern
    except (AssertionError, ValueError):
        return False


def _fits(host: str, pattern: str) -> bool:
    # In OpenSSH's patterns only * and ? are special.
    return fnmatchcase(host, pattern.replace("[", "[[]"))
