"""Host keys in pyinfra's and paramiko's SSH client: judged by OpenSSH's rules, never asked about.

paramiko compares names exactly and ignores `@revoked`. Importing this module replaces pyinfra's
reader of known_hosts, for machines and for the bastions on the way.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

import paramiko
from pyinfra.connectors.sshuserclient import client as sshuserclient

from provision.local import known_hosts
from provision.local.ssh_config import Route

_PREFERENCE = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
# Servers sign with SHA-2: none offers the algorithm that has the name of the key's type.
_ALGORITHM = {"ssh-rsa": "rsa-sha2-512"}


class Expected:
    """The key that paramiko compares with the server's: equal to each key that is accepted."""

    def __init__(self, known: known_hosts.Known, revoked: Path | None) -> None:
        self.known = known
        self._revoked = revoked

    def revokes(self, key: bytes) -> bool:
        return key in self.known.revoked or known_hosts.is_revoked(self._revoked, key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, paramiko.PKey):
            return False
        return self.known.accepts(other.asbytes()) and not self.revokes(other.asbytes())

    def __hash__(self) -> int:
        return hash(self.known)

    def get_base64(self) -> str:
        """Give one of the known keys, for the text of paramiko's exception."""
        return b64encode(self.known.keys[0].key).decode() if self.known.keys else "none"


class _Answer:
    """What paramiko expects to find about a host: a mapping from types to keys."""

    def __init__(self, known: known_hosts.Known, revoked: Path | None) -> None:
        self._expected = Expected(known, revoked)
        kinds = {entry.kind for entry in known.keys if entry.key not in known.revoked}
        self._kinds = [kind for kind in _PREFERENCE if kind in kinds] or [_PREFERENCE[0]]

    def keys(self) -> list[str]:
        """Give the algorithms; paramiko asks the server for the first."""
        return [_ALGORITHM.get(kind, kind) for kind in self._kinds]

    def values(self) -> list[Expected]:
        return [self._expected]

    def get(self, kind: str) -> Expected:  # noqa: ARG002  paramiko's signature
        return self._expected


class _HostKeys:
    """The files, in the place of `paramiko.HostKeys`.

    Args:
        name: the name of the host, whatever paramiko asks for: it knows no HostKeyAlias.
        revoked: the file of `RevokedHostKeys`.
    """

    def __init__(self, files: Iterable[Path], name: str = "", revoked: Path | None = None) -> None:
        self._files = tuple(files)
        self._name = name
        self._revoked = revoked

    def get(self, host: str) -> _Answer | None:
        known = known_hosts.lookup(self._files, self._name or host)
        return _Answer(known, self._revoked) if known.keys or known.revoked else None


def judge(client: paramiko.SSHClient, file: Path, route: Route) -> None:
    """Let a client accept only the keys that the file has for the machine."""
    setattr(client, "_host_keys", _HostKeys((file,), route.key_name, route.revoked))  # noqa: B010  mypy


def read(filenames: Iterable[str]) -> _HostKeys:
    """Take the place of pyinfra's `get_host_keys`."""
    files = tuple(Path(name) for name in filenames)
    # A bastion without `UserKnownHostsFile`: ssh reads the system's files too.
    if known_hosts.users_own()[0] in files:
        files = (*files, *known_hosts.users_own()[1:], *known_hosts.SYSTEM)
    return _HostKeys(files)


setattr(sshuserclient, "get_host_keys", read)  # noqa: B010  mypy
# A bastion's client gets its policy from ssh_config alone. The default there is "ask", which would
# wait for the operator to type.
setattr(sshuserclient, "AskPolicy", sshuserclient.StrictPolicy)  # noqa: B010  mypy
