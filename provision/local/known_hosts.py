"""The host keys of a cluster's machines, in one known_hosts file. No other key is trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from paramiko.hostkeys import HostKeyEntry, HostKeys, InvalidHostKey

from provision.local import private_file
from provision.model.cluster import Ssh

USERS_OWN = Path("~/.ssh/known_hosts")


def write(machines: Iterable[Ssh], path: Path) -> Path:
    """Write the file, 0600. A reader sees the old content or the new.

    A pinned machine has its pinned key and no other. For machines without a pin the entries of
    their `known_hosts_file` (else the user's own) are taken over.

    Returns:
        `path`.
    """
    machines = tuple(machines)
    pinned = {name(ssh.hostname, ssh.port): ssh.host_key for ssh in machines if ssh.host_key}
    lines = [f"{host} {' '.join(key.split()[:2])}\n" for host, key in pinned.items()]
    files = {ssh.known_hosts_file or USERS_OWN.expanduser() for ssh in machines if not ssh.host_key}
    for file in sorted(files):
        lines += _entries(file, pinned)
    private_file.write(path, "".join(lines).encode())
    return path


def name(hostname: str, port: int) -> str:
    """Give the name under which SSH looks a machine's key up."""
    return hostname if port == 22 else f"[{hostname}]:{port}"


def _entries(file: Path, without: Iterable[str]) -> Iterator[str]:
    """Give the lines that paramiko can read: it rejects a file with any other line."""
    if not file.is_file():
        return
    for line in file.read_text("utf-8", errors="replace").splitlines():
        try:
            entry = HostKeyEntry.from_line(line.strip()) if line.strip() else None
        except InvalidHostKey:
            continue
        if entry and not any(_matches(pattern, without) for pattern in entry.hostnames or ()):
            yield f"{line.strip()}\n"


def _matches(pattern: str, hosts: Iterable[str]) -> bool:
    if pattern.startswith("|1|"):
        return any(HostKeys.hash_host(host, pattern) == pattern for host in hosts)
    # In OpenSSH's patterns only * and ? are special.
    return any(fnmatchcase(host, pattern.replace("[", "[[]")) for host in hosts)
