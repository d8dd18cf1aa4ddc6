"""Encryption of snapshots, in the format of age (age-encryption.org/v1).

A cluster's identity, the key that opens its snapshots, is derived from the key that encrypts its
Secrets: who has the cluster's trust has it, and nobody has to keep another file. Masters need only
the recipient, its public half.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import bech32
import pyrage
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from provision.model.errors import RefusedError
from provision.pki.trust import Trust

_EXCESSIVE = "Excessive work"
_ATTEMPTS, _PAUSE = 50, 0.1  # seconds
_MAGIC = b"age-encryption.org/v1\n"
_INFO = b"clusterctl: age identity of snapshots, 1"


def identity(trust: Trust) -> str:
    """The cluster's identity, `AGE-SECRET-KEY-1...`, as `age -d -i` reads it."""
    secret = base64.b64decode(trust.encryption_key)
    key = HKDF(SHA256(), length=32, salt=None, info=_INFO).derive(secret)
    return _identity(key)


def recipient(identity: str) -> str:
    """The public half of an identity, `age1...`."""
    return str(pyrage.x25519.Identity.from_str(identity).to_public())


def encrypt(source: Path, target: Path, recipients: Iterable[str]) -> None:
    """Encrypt a file so that each of these can open it.

    Raises:
        RefusedError: a recipient is not one.
    """
    keys = [_recipient(text) for text in recipients]
    pyrage.encrypt_file(str(source), str(target), keys)


def encrypt_with_passphrase(source: Path, target: Path, passphrase: str) -> None:
    """Encrypt a file so that the passphrase opens it, and nothing else; it is read into memory."""
    target.write_bytes(pyrage.passphrase.encrypt(source.read_bytes(), passphrase))


def open_with_passphrase(content: bytes, passphrase: str) -> bytes:
    """Decrypt with a passphrase.

    Raises:
        pyrage.DecryptError: it is another one, or the content is not whole.
    """
    return patiently(lambda: bytes(pyrage.passphrase.decrypt(content, passphrase)))


def patiently(opening: Callable[[], bytes]) -> bytes:
    """Open something, again when age says that this computer is too slow for it.

    It refuses what would take it more than 16 s, by how long the smallest piece of such work takes:
    milliseconds, in which a busy computer may well do something else.
    """
    for _ in range(_ATTEMPTS):
        try:
            return opening()
        except pyrage.DecryptError as error:
            if _EXCESSIVE not in str(error):
                raise
            time.sleep(_PAUSE)
    return opening()


def wants_passphrase(source: Path) -> bool:
    """Whether a passphrase opens the file, not an identity.

    Raises:
        RefusedError: it cannot be read, or age did not write it.
    """
    try:
        with source.open("rb") as file:
            head = file.read(len(_MAGIC) + 16)
    except OSError as error:
        raise RefusedError(f"{source} cannot be read: {error.strerror}") from error
    if not head.startswith(_MAGIC):
        raise RefusedError(
            f"{source} is not a snapshot: it is not encrypted by age",
            hint="give a file that clusterctl etcd snapshot wrote",
        )
    return head.removeprefix(_MAGIC).startswith(b"-> scrypt ")


def decrypt(source: Path, target: Path, identities: Iterable[str]) -> None:
    """Open a file with the first identity that fits.

    Raises:
        RefusedError: none fits, or the file is not whole.
    """
    keys = [pyrage.x25519.Identity.from_str(text) for text in identities]
    try:
        pyrage.decrypt_file(str(source), str(target), keys)
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise RefusedError(
                f"none of {len(keys)} known keys opens {source}: it is of another cluster, "
                "or was encrypted for others only",
                hint="give the key that opens it: --identity FILE",
            ) from error
        raise _damaged(source) from error
    except OSError as error:
        # Also what pyrage raises when a chunk of the file is not whole; that one has no number.
        if error.errno is not None:
            raise
        raise _damaged(source) from error


def decrypt_with_passphrase(source: Path, target: Path, passphrase: str) -> None:
    """Open a file with its passphrase; it is read into memory.

    Raises:
        RefusedError: the passphrase is wrong, or the file is not whole.
    """
    try:
        target.write_bytes(open_with_passphrase(source.read_bytes(), passphrase))
    except pyrage.DecryptError as error:
        if _EXCESSIVE in str(error):
            message = f"{source} was closed on a much faster computer: {error}"
            raise RefusedError(message, hint="open it there, or when this one is idle") from error
        if "Decryption failed" in str(error):
            raise RefusedError(
                f"that is not the passphrase of {source}", hint="type it again"
            ) from error
        raise _damaged(source) from error


def identities(path: Path) -> tuple[str, ...]:
    """The identities of a file, as age-keygen writes it; comments and empty lines are skipped.

    Raises:
        RefusedError: it cannot be read, or has something else in it.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path} cannot be read: {error}") from error
    found = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    try:
        for text in found:
            pyrage.x25519.Identity.from_str(text)
    except pyrage.IdentityError as error:
        raise RefusedError(
            f"{path} has a line that is not an identity of age",
            hint="such a line begins with AGE-SECRET-KEY-1",
        ) from error
    return found


def is_recipient(text: str) -> bool:
    """Whether it is a public key that age can encrypt to."""
    try:
        _recipient(text)
    except RefusedError:
        return False
    return True


def _recipient(text: str) -> pyrage.x25519.Recipient:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise RefusedError(
            f"{text!r} is not a recipient of age", hint="such a key begins with age1"
        ) from error


def _damaged(source: Path) -> RefusedError:
    return RefusedError(
        f"{source} is damaged or cut off: it cannot be decrypted to its end",
        hint="take another copy, or an older snapshot",
    )


def _identity(key: bytes) -> str:
    """Write 32 bytes as age writes an identity (BIP 173). pyrage reads such texts, but makes none."""
    words = bech32.convertbits(key, 8, 5)
    return bech32.bech32_encode("age-secret-key-", words or ()).upper()
