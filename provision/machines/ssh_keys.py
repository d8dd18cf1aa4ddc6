"""SSH keys of machines that clusterctl makes, and the first login with them."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provision.local import private_file
from provision.model.errors import MachinesError


@dataclass(frozen=True)
class SshKey:
    """An ed25519 key pair in OpenSSH's formats."""

    private: bytes
    public: str


def new_key() -> SshKey:
    """Make an ed25519 key pair."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return SshKey(private, public.decode())


def write(path: Path, key: SshKey) -> None:
    """Write both halves, `PATH` and `PATH.pub`. If the private half exists, both exist."""
    path.with_name(f"{path.name}.pub").write_text(f"{key.public}\n")
    private_file.write(path, key.private)


def public(path: Path) -> str | None:
    """Read the public half of a key, `ssh-ed25519 AAAA...`; None: the key does not exist yet."""
    try:
        return path.with_name(f"{path.name}.pub").read_text().strip()
    except FileNotFoundError:
        return None


def log_in(address: IPv4Address, host_key: str, user: str, key: paramiko.PKey) -> None:
    """Log in once, as OpenSSH would.

    Raises:
        MachinesError: the server has another host key.
        OSError, EOFError, paramiko.SSHException: the login fails, or the machine is not ready yet.
    """
    with socket.create_connection((str(address), 22), timeout=2) as connection:
        transport = paramiko.Transport(connection)
        try:
            transport.start_client(timeout=5)
            shown = transport.get_remote_server_key()
            if f"{shown.get_name()} {shown.get_base64()}" != host_key:
                raise MachinesError(
                    f"{address} shows another host key than the one that clusterctl gave it",
                    hint="another machine has this address, or the machine was changed by an attacker",
                )
            transport.auth_publickey(user, key)
        finally:
            with suppress(OSError):
                transport.close()
