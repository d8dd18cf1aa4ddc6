"""The login on a machine: it offers keys in OpenSSH's order, then the password."""

from __future__ import annotations

import os
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from paramiko.auth_strategy import AuthSource, AuthStrategy, SourceResult
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors.ssh_util import load_key_with_certificate

from provision.local.ssh_config import Route
from provision.model.cluster import Ssh

_OPENSSH = "-----BEGIN OPENSSH PRIVATE KEY-----"  # pragma: allowlist secret
_PKCS8 = (
    "-----BEGIN PRIVATE KEY-----",  # pragma: allowlist secret
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
)
_MAGIC = b"openssh-key-v1\0"
_environment = threading.Lock()


class EndedError(paramiko.AuthenticationException):
    """The server closed the connection before it accepted the user."""


class Login(AuthStrategy):
    """Offer keys one after the other, then the password.

    With `ssh_key`, it offers only this key, as `ssh -i KEY -o IdentitiesOnly=yes` does. Without it,
    OpenSSH's order applies: the agent's keys that ssh_config names, the agent's other keys, then
    the key files.

    Raises:
        PyinfraError: `ssh_key` cannot be used.
    """

    def __init__(self, ssh: Ssh, route: Route) -> None:
        self._ssh = ssh
        self._user = route.user
        self._agent = _agent_keys(route.agent)
        self._keys = [_own_key(ssh, self._agent)] if ssh.key else list(_keys(route, self._agent))

    def get_sources(self) -> Iterator[AuthSource]:
        """Give no sources: `authenticate` replaces them, and notices when the server disconnects."""
        yield from ()

    def authenticate(self, transport: paramiko.Transport) -> list[SourceResult]:
        attempts: list[Callable[[], list[str]]] = [
            lambda key=key: transport.auth_publickey(self._user, key)  # type: ignore[misc]
            for key in self._keys
        ]
        if (password := self._ssh.password) is not None:
            attempts.append(lambda: transport.auth_password(self._user, password))
        refusal: paramiko.AuthenticationException | None = None
        for attempt in attempts:
            try:
                # The methods that remain, if the server requires more than one.
                if not attempt():
                    return []
            except paramiko.AuthenticationException as error:
                refusal = error
            except (paramiko.SSHException, EOFError) as error:
                raise EndedError(str(error)) from error
            if not transport.is_active():
                raise EndedError("the server closed the connection") from refusal
        raise refusal or paramiko.AuthenticationException("there is no key to offer")


def _agent_keys(agent: str) -> list[paramiko.AgentKey]:
    if agent == "none":
        return []
    with _environment:
        # paramiko reads the socket's path from the environment alone.
        before = os.environ.get("SSH_AUTH_SOCK")
        if agent:
            os.environ["SSH_AUTH_SOCK"] = agent
        try:
            return list(paramiko.Agent().get_keys())
        except (paramiko.SSHException, OSError):
            return []
        finally:
            if agent and before is None:
                del os.environ["SSH_AUTH_SOCK"]
            elif agent and before is not None:
                os.environ["SSH_AUTH_SOCK"] = before


def _own_key(ssh: Ssh, agent: list[paramiko.AgentKey]) -> paramiko.PKey:
    assert ssh.key is not None  # noqa: S101  the caller has checked
    try:
        return load(ssh.key, ssh.key_password)
    except PyinfraError:
        blob = public_blob(ssh.key)
        for key in agent:
            if key.asbytes() == blob:
                return key
        raise


def _keys(route: Route, agent: list[paramiko.AgentKey]) -> Iterator[paramiko.PKey]:
    files = [file for file in route.identities if file.is_file() or _public(file).is_file()]
    named = [blob for file in files if (blob := public_blob(file))]
    held = {key.asbytes(): key for key in agent}
    yield from (held[blob] for blob in named if blob in held)
    if not route.identities_only:
        yield from (key for blob, key in held.items() if blob not in named)
    for file in files:
        if public_blob(file) in held:
            continue
        try:
            yield load(file, None, route.certificates)
        except (PyinfraError, paramiko.SSHException, OSError, ValueError):
            continue


def load(path: Path, password: str | None, certificates: tuple[Path, ...] = ()) -> paramiko.PKey:
    """Read a private key in any format that OpenSSH reads, with its own certificate.

    Args:
        certificates: files that may have the key's certificate. `PATH-cert.pub` is tried last.

    Raises:
        PyinfraError: the file is no private key, or it is encrypted and the password is wrong.
    """
    text = path.read_text(errors="replace") if path.is_file() else ""
    if is_fido(path):
        raise PyinfraError(f"{path} is a FIDO key")
    if text.startswith(_PKCS8):
        key = _from_pkcs8(path, text, password)
    else:
        # pyinfra does not compare a certificate with the key: it gets none.
        key = load_key_with_certificate(
            str(path), password, certificate_filename=os.devnull, allow_prompt=False
        )
    for file in (*certificates, path.with_name(f"{path.name}-cert.pub")):
        if certificate := _certificate(file, key):
            key.load_certificate(paramiko.Message(certificate))
            break
    return key


def _certificate(file: Path, key: paramiko.PKey) -> bytes | None:
    """Read a certificate; None: the file has no certificate, or one of another key."""
    try:
        text = file.read_bytes()
        certificate = serialization.load_ssh_public_identity(text)
    except (OSError, ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(certificate, serialization.SSHCertificate):
        return None
    public = certificate.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return b64decode(text.split()[1]) if b64decode(public.split()[1]) == key.asbytes() else None


def _from_pkcs8(path: Path, text: str, password: str | None) -> paramiko.PKey:
    """Convert the key, because paramiko does not read PKCS#8."""
    try:
        key = serialization.load_pem_private_key(
            text.encode(), password.encode() if password and "ENCRYPTED" in text else None
        )
        converted = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ).decode()
    except TypeError as error:
        message = f"Private key file ({path}) is encrypted, set ssh_key_password to use this key"
        raise PyinfraError(message) from error
    except ValueError as error:
        raise PyinfraError(f"Invalid private key file: {path}: {error}") from error
    for kind in (paramiko.RSAKey, paramiko.ECDSAKey, paramiko.Ed25519Key):
        try:
            return kind.from_private_key(StringIO(converted))
        except paramiko.SSHException:
            continue
    raise PyinfraError(f"Invalid private key file: {path}: its type is not supported")


def public_blob(path: Path) -> bytes | None:
    """Read the public half of a key, even if the key is encrypted; None: not found."""
    for file in (path, _public(path)):
        if not file.is_file():
            continue
        text = file.read_text(errors="replace").strip()
        try:
            if text.startswith(_OPENSSH):
                return _public_part(b64decode("".join(text.splitlines()[1:-1])))
            words = text.split()
            if len(words) > 1 and not text.startswith("-----"):
                return b64decode(words[1])
        except ValueError:
            continue
    return None


def is_fido(path: Path) -> bool:
    """Whether the private half of a key is on a FIDO token, which paramiko cannot use."""
    blob = public_blob(path) or b""
    return blob[4:].startswith(b"sk-")


def _public_part(data: bytes) -> bytes | None:
    """Find the public key in OpenSSH's format. Source: PROTOCOL.key of OpenSSH."""
    rest = data.removeprefix(_MAGIC)
    for _ in range(3):  # cipher, key derivation function, its options
        rest = rest[4 + int.from_bytes(rest[:4], "big") :]
    rest = rest[4:]  # the number of keys, which is one
    return rest[4 : 4 + int.from_bytes(rest[:4], "big")] or None


def _public(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")
