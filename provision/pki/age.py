"""The keys of a cluster's snapshots, in the format of age (age-encryption.org/v1). Pure.

A cluster's identity is the key that opens its snapshots. It is derived from the key that encrypts
the cluster's Secrets, so an operator who has the cluster's trust needs no other file. Masters need
only the recipient, the identity's public half. `provision.local.age_files` encrypts and opens files.
"""

from __future__ import annotations

import base64

import bech32
import pyrage
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from provision.model.errors import RefusedError
from provision.pki.trust import Trust

_INFO = b"clusterctl: age identity of snapshots, 1"


def identity(trust: Trust) -> str:
    """The cluster's identity, `AGE-SECRET-KEY-1...`, as `age -d -i` reads it."""
    secret = base64.b64decode(trust.encryption_key)
    key = HKDF(SHA256(), length=32, salt=None, info=_INFO).derive(secret)
    return _identity(key)


def recipient(identity: str) -> str:
    """The public half of an identity, `age1...`."""
    return str(pyrage.x25519.Identity.from_str(identity).to_public())


def is_recipient(text: str) -> bool:
    """Whether the text is a public key that age can encrypt to."""
    try:
        parse_recipient(text)
    except RefusedError:
        return False
    return True


def parse_recipient(text: str) -> pyrage.x25519.Recipient:
    """Read a public key, `age1...`.

    Raises:
        RefusedError: the text is not a recipient of age.
    """
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise RefusedError(
            f"{text!r} is not a recipient of age", hint="such a key begins with age1"
        ) from error


def _identity(key: bytes) -> str:
    """Write 32 bytes as age writes an identity (BIP 173).

    pyrage reads this form, but cannot write it.
    """
    words = bech32.convertbits(key, 8, 5)
    return bech32.bech32_encode("age-secret-key-", words or ()).upper()
