"""How the cache's keys are sealed, where the operator wants that: by a passphrase, or an age key.

Wanted is what the environment says: CLUSTERCTL_PASSPHRASE_FILE names a file whose first line is
the passphrase, CLUSTERCTL_AGE_IDENTITY one that age-keygen wrote. What was sealed with a passphrase
is also opened by one that is typed.
"""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pyrage

from provision.local import private_file
from provision.model.errors import RefusedError, TrustError
from provision.pki import age

PASSPHRASE_FILE = "CLUSTERCTL_PASSPHRASE_FILE"  # noqa: S105 - a name
AGE_IDENTITY = "CLUSTERCTL_AGE_IDENTITY"


@dataclass(frozen=True)
class Seal:
    """One of the two; both is one too many.

    Attributes:
        identities: of age, `AGE-SECRET-KEY-1...`; the first seals, any opens.
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
            TrustError: this is not what it was sealed with, or it is damaged.
        """
        try:
            if self.passphrase:
                return age.open_with_passphrase(content, self.passphrase)
            keys = [pyrage.x25519.Identity.from_str(text) for text in self.identities]
            return bytes(pyrage.decrypt(content, keys))
        except pyrage.DecryptError as error:
            what = "the passphrase" if self.passphrase else "the age identity"
            message = f"{what} does not open the cache's keys: {error}"
            hint = f"correct {PASSPHRASE_FILE} or {AGE_IDENTITY}: they are as when it was sealed"
            raise TrustError(message, hint=hint) from error


def wanted() -> Seal | None:
    """The seal that the environment asks for.

    Raises:
        RefusedError: a file is missing, empty, or open to others.
    """
    passphrase_file = os.environ.get(PASSPHRASE_FILE)
    identity_file = os.environ.get(AGE_IDENTITY)
    if passphrase_file and identity_file:
        message = f"{PASSPHRASE_FILE} and {AGE_IDENTITY} are both set"
        raise RefusedError(message, hint="one of them seals the cache: unset the other")
    if passphrase_file:
        first = private_file.read(Path(passphrase_file)).decode().partition("\n")[0]
        if not first:
            raise RefusedError(f"{passphrase_file} has no passphrase in its first line")
        return Seal(passphrase=first)
    if identity_file:
        private_file.read(Path(identity_file))
        found = age.identities(Path(identity_file))
        if not found:
            raise RefusedError(f"{identity_file} has no identity", hint="age-keygen makes one")
        return Seal(identities=found)
    return None


def asked(path: Path) -> Seal:
    """The seal of a file, from whoever sits there.

    Raises:
        TrustError: there is nobody, or it is not a passphrase that is needed.
    """
    if not age.wants_passphrase(path) or not sys.stdin.isatty():
        message = f"the cache's keys, {path}, are sealed"
        raise TrustError(message, hint=f"set {PASSPHRASE_FILE} or {AGE_IDENTITY}")
    return Seal(passphrase=getpass.getpass(f"Passphrase of {path}: "))
