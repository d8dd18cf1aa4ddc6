"""Encryption of the cache's keys, if the operator wants it: by a passphrase, or by an age key.

The environment decides: CLUSTERCTL_PASSPHRASE_FILE names a file with the passphrase in its first
line, CLUSTERCTL_AGE_IDENTITY names a file of age-keygen. An operator can also type the passphrase.
"""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pyrage

from provision.local import age_files, private_file
from provision.model.commands import shell
from provision.model.errors import RefusedError, TrustError

PASSPHRASE_FILE = "CLUSTERCTL_PASSPHRASE_FILE"  # noqa: S105 - a name
AGE_IDENTITY = "CLUSTERCTL_AGE_IDENTITY"


@dataclass(frozen=True)
class Seal:
    """A passphrase, or identities of age; never both.

    Attributes:
        identities: of age, `AGE-SECRET-KEY-1...`; the first one encrypts, each one can decrypt.
    """

    passphrase: str = field(default="", repr=False)
    identities: tuple[str, ...] = field(default=(), repr=False)

    def close(self, content: bytes) -> bytes:
        """Encrypt."""
        if self.passphrase:
            return bytes(pyrage.passphrase.encrypt(content, self.passphrase))
        key = pyrage.x25519.Identity.from_str(self.identities[0])
        return bytes(pyrage.encrypt(content, [key.to_public()]))

    def open(self, content: bytes) -> bytes:
        """Decrypt.

        Raises:
            TrustError: the content was encrypted with another key, or is damaged.
        """
        try:
            if self.passphrase:
                return age_files.open_with_passphrase(content, self.passphrase)
            keys = [pyrage.x25519.Identity.from_str(text) for text in self.identities]
            return bytes(pyrage.decrypt(content, keys))
        except pyrage.DecryptError as error:
            what = "the passphrase" if self.passphrase else "the age identity"
            where = PASSPHRASE_FILE if self.passphrase else AGE_IDENTITY
            message = f"{what} does not open the cache's keys: {error}"
            hint = f"give the one with which they were encrypted; {where} names its file"
            raise TrustError(message, hint=hint) from error


def wanted() -> Seal | None:
    """Read the seal that the environment names; None: it names none.

    Raises:
        RefusedError: a file is missing or empty, or other users may read it.
    """
    passphrase_file = os.environ.get(PASSPHRASE_FILE)
    identity_file = os.environ.get(AGE_IDENTITY)
    if passphrase_file and identity_file:
        message = f"{PASSPHRASE_FILE} and {AGE_IDENTITY} are both set"
        raise RefusedError(message, hint=f"choose one, for example: {shell('unset', AGE_IDENTITY)}")
    if passphrase_file:
        first = private_file.read(Path(passphrase_file)).decode().partition("\n")[0]
        if not first:
            raise RefusedError(
                f"{passphrase_file} has no passphrase in its first line",
                hint=f"{PASSPHRASE_FILE} names it: write the passphrase there, or unset the variable",
            )
        return Seal(passphrase=first)
    if identity_file:
        private_file.read(Path(identity_file))
        found = age_files.read_identities(Path(identity_file))
        if not found:
            raise RefusedError(
                f"{identity_file} has no identity",
                hint=f"{shell('age-keygen', '-o', 'FILE')} makes one, in a new file; set {AGE_IDENTITY} to it",
            )
        return Seal(identities=found)
    return None


def asked(path: Path) -> Seal:
    """Ask the operator for the passphrase of a file.

    Raises:
        TrustError: there is no terminal, or the file was not encrypted with a passphrase.
    """
    if not age_files.wants_passphrase(path) or not sys.stdin.isatty():
        message = f"the cache's keys, {path}, are encrypted"
        name = PASSPHRASE_FILE if age_files.wants_passphrase(path) else AGE_IDENTITY
        raise TrustError(message, hint=f"set {name}, the file that opens them")
    return Seal(passphrase=getpass.getpass(f"Passphrase of {path}: "))
