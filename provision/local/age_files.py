"""Files that age encrypts: snapshots, and the cache of a cluster's keys.

`provision.pki.age` derives the keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyrage

from provision.model.errors import RefusedError
from provision.pki.age import parse_recipient

_EXCESSIVE = "Excessive work"
_ATTEMPTS, _PAUSE = 50, 0.1  # seconds
_MAGIC = b"age-encryption.org/v1\n"


def encrypt(source: Path, target: Path, recipients: Iterable[str]) -> None:
    """Encrypt a file so that the identity of each recipient can open it.

    Raises:
        RefusedError: a text is not a recipient of age.
    """
    keys = [parse_recipient(text) for text in recipients]
    pyrage.encrypt_file(str(source), str(target), keys)


def encrypt_with_passphrase(source: Path, target: Path, passphrase: str) -> None:
    """Encrypt a file so that only the passphrase opens it. The file is read into memory."""
    target.write_bytes(pyrage.passphrase.encrypt(source.read_bytes(), passphrase))


def open_with_passphrase(content: bytes, passphrase: str) -> bytes:
    """Decrypt with a passphrase.

    Raises:
        pyrage.DecryptError: the passphrase is wrong, or the content is damaged or cut off.
    """
    return patiently(lambda: bytes(pyrage.passphrase.decrypt(content, passphrase)))


def patiently(opening: Callable[[], bytes]) -> bytes:
    """Call `opening`, and again while age says that this computer is too slow for it.

    age refuses work that would take more than 16 s. It estimates that from the time of the smallest
    piece of such work. That piece takes milliseconds: on a busy computer the estimate is too high.

    Raises:
        pyrage.DecryptError: `opening` failed for another reason, or too often for this one.
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
        RefusedError: the file cannot be read, or age did not write it.
    """
    try:
        with source.open("rb") as file:
            head = file.read(len(_MAGIC) + 16)
    except OSError as error:
        raise RefusedError(f"{source} cannot be read: {error.strerror}") from error
    if not head.startswith(_MAGIC):
        raise RefusedError(
            f"{source} is not a snapshot: it is not encrypted by age",
            hint="give a file that `etcd snapshot` wrote",
        )
    return head.removeprefix(_MAGIC).startswith(b"-> scrypt ")


def decrypt(source: Path, target: Path, identities: Iterable[str]) -> None:
    """Open a file with the first identity that fits.

    Raises:
        RefusedError: no identity fits, or the file is damaged or cut off.
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
        # pyrage raises an OSError without a number when a chunk of the file is damaged or cut off.
        if error.errno is not None:
            raise
        raise _damaged(source) from error


def decrypt_with_passphrase(source: Path, target: Path, passphrase: str) -> None:
    """Open a file with its passphrase. The file is read into memory.

    Raises:
        RefusedError: the passphrase is wrong, the file is damaged or cut off, or this computer is
            too slow for it.
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


def read_identities(path: Path) -> tuple[str, ...]:
    """The identities of a file, as age-keygen writes it. Comments and empty lines are skipped.

    Raises:
        RefusedError: the file cannot be read, or another line is not an identity.
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


def _damaged(source: Path) -> RefusedError:
    return RefusedError(
        f"{source} is damaged or cut off: it cannot be decrypted to its end",
        hint="take another copy, or an older snapshot",
    )
