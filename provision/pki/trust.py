"""A cluster's secrets: its authorities, the service-account key pair, two symmetric keys.

They are made once, with the cluster, and then read back from a master (`trust_files`). `rotation`
replaces them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from provision.model.paths import PKI
from provision.pki.authority import (
    Authority,
    Signer,
    create_authority,
    new_key,
    private_pem,
    public_pem,
)

SA_KEY = f"{PKI}/sa.key"
SA_PUB = f"{PKI}/sa.pub"
ENCRYPTION_KEY = f"{PKI}/encryption.key"
NETWORK_KEY = f"{PKI}/network.key"
# The certificate that belongs to ca.key; ca.crt may have others beside it.
SIGNING_CA = f"{PKI}/signing-ca.crt"
# kubeadm's layout has no place for the generation and for the replacements under way.
STATE = f"{PKI}/trust.json"

# All files of a cluster's trust, as every master has them.
PATHS = (
    *(authority.cert_path for authority in Authority),
    *(authority.key_path for authority in Authority),
    SA_KEY,
    SA_PUB,
    ENCRYPTION_KEY,
    NETWORK_KEY,
    STATE,
)


class Part(StrEnum):
    """What can be replaced while the cluster runs."""

    KUBERNETES = "kubernetes"
    ETCD = "etcd"
    FRONT_PROXY = "front-proxy"
    SERVICE_ACCOUNT = "service-account"
    ENCRYPTION = "encryption"


AUTHORITIES = {
    Part.KUBERNETES: Authority.KUBERNETES,
    Part.ETCD: Authority.ETCD,
    Part.FRONT_PROXY: Authority.FRONT_PROXY,
}


class Stage(StrEnum):
    """How far a replacement is. A part that is not being replaced has no stage."""

    INTRODUCED = "introduced"
    ACTIVE = "active"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class Pair:
    """An authority's certificate and key, a public and a private key, or a name and a key."""

    public: bytes
    private: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Rotation:
    """A replacement that is under way.

    Attributes:
        other: the new pair while the stage is INTRODUCED; then the old pair.
        since: when clusterctl saw that every machine had reached the stage; None: not seen yet.
    """

    part: Part
    stage: Stage
    other: Pair
    since: datetime | None = None


@dataclass(frozen=True)
class TrustFile:
    """A file of the trust, as every master has it; its owner is root:root."""

    content: bytes = field(repr=False)
    secret: bool

    @property
    def mode(self) -> int:
        return 0o600 if self.secret else 0o644


@dataclass(frozen=True)
class Trust:
    """All secrets of a cluster.

    Attributes:
        kubernetes, etcd, front_proxy: the three authorities.
        service_account_key: PEM, signs service-account tokens.
        service_account_public: PEM, verifies them.
        encryption_key: 32 random bytes in base64, as `secretbox` in EncryptionConfiguration
            wants them.
        network_key: 48 hexadecimal digits. OSPF uses all of it, as an HMAC key. VRRP sends the
            first eight in the clear; 160 bits stay secret.
        encryption_name: `key1`; etcd keeps it with everything that the key has encrypted.
        cross: the Kubernetes authority's certificate, signed by the authority before it. Servers
            send it for clients that know only that one. Empty for a first authority.
        identity: the fingerprint of the first authority, kept since the first replacement; empty
            before that.
        generation: number of changes since the cluster was made.
        rotations: the replacements under way, at most one for each part.
    """

    kubernetes: Signer
    etcd: Signer
    front_proxy: Signer
    service_account_key: bytes = field(repr=False)
    service_account_public: bytes = field(repr=False)
    encryption_key: str = field(repr=False)
    network_key: str = field(repr=False)
    encryption_name: str = "key1"
    cross: bytes = b""
    identity: str = ""
    generation: int = 0
    rotations: tuple[Rotation, ...] = ()

    @classmethod
    def create(cls, cluster_name: str, now: datetime) -> Trust:
        """Make all secrets of a new cluster; `now` is aware."""
        return cls.signed_by({a: create_authority(f"{cluster_name} {a}", now) for a in Authority})

    @classmethod
    def signed_by(cls, signers: Mapping[Authority, Signer]) -> Trust:
        """Make all secrets of a new cluster but the authorities."""
        service_account = new_key()
        return cls(
            kubernetes=signers[Authority.KUBERNETES],
            etcd=signers[Authority.ETCD],
            front_proxy=signers[Authority.FRONT_PROXY],
            service_account_key=private_pem(service_account),
            service_account_public=public_pem(service_account),
            encryption_key=base64.b64encode(secrets.token_bytes(32)).decode(),
            network_key=secrets.token_hex(24),
        )

    @property
    def external(self) -> bool:
        """Whether every authority is external."""
        return all(self.authority(authority).key is None for authority in Authority)

    def rotation(self, part: Part) -> Rotation | None:
        """The replacement of this part that is under way; None: there is none."""
        return next((r for r in self.rotations if r.part is part), None)

    def authority(self, authority: Authority) -> Signer:
        return {
            Authority.KUBERNETES: self.kubernetes,
            Authority.ETCD: self.etcd,
            Authority.FRONT_PROXY: self.front_proxy,
        }[authority]

    def bundle(self, authority: Authority) -> bytes:
        """All certificates whose signatures count as this authority's, PEM; its own is first."""
        part = next(p for p, a in AUTHORITIES.items() if a is authority)
        return self.authority(authority).certificate + self._accepted_beside(part)

    @property
    def encryption_keys(self) -> tuple[tuple[str, str], ...]:
        """(name, key) of all keys that decrypt; the first one encrypts."""
        keys = [(self.encryption_name, self.encryption_key)]
        rotation = self.rotation(Part.ENCRYPTION)
        if rotation and rotation.stage is not Stage.WITHDRAWN:
            other = rotation.other
            keys.append((other.public.decode(), (other.private or b"").decode()))
        return tuple(keys)

    def _accepted_beside(self, part: Part) -> bytes:
        rotation = self.rotation(part)
        return b"" if not rotation or rotation.stage is Stage.WITHDRAWN else rotation.other.public

    def files(self) -> dict[str, TrustFile]:
        """Absolute path on every master -> file, in kubeadm's layout."""
        state = {**self._state(), "digest": self.digest}
        content = json.dumps(state, indent=1, sort_keys=True).encode() + b"\n"
        return {**self._contents(), STATE: TrustFile(content, secret=True)}

    def _contents(self) -> dict[str, TrustFile]:
        files = {}
        for authority in Authority:
            signer = self.authority(authority)
            files[authority.cert_path] = TrustFile(self.bundle(authority), secret=False)
            if signer.key is not None:
                files[authority.key_path] = TrustFile(signer.key, secret=True)
        public = self.service_account_public + self._accepted_beside(Part.SERVICE_ACCOUNT)
        files[SIGNING_CA] = TrustFile(self.kubernetes.certificate, secret=False)
        files[SA_PUB] = TrustFile(public, secret=False)
        files[SA_KEY] = TrustFile(self.service_account_key, secret=True)
        files[ENCRYPTION_KEY] = TrustFile(f"{self.encryption_key}\n".encode(), secret=True)
        files[NETWORK_KEY] = TrustFile(f"{self.network_key}\n".encode(), secret=True)
        return files

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "generation": self.generation,
            "encryption_name": self.encryption_name,
            "cross": self.cross.decode(),
            "rotations": [
                {
                    "part": r.part,
                    "stage": r.stage,
                    "since": r.since and r.since.isoformat(),
                    "public": r.other.public.decode(),
                    "private": None if r.other.private is None else r.other.private.decode(),
                }
                for r in self.rotations
            ],
        }

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of everything but the authorities' keys, which may be elsewhere.

        Half of the input is random, so the digest reveals nothing.
        """
        keys = {authority.key_path for authority in Authority}
        whole = hashlib.sha256(json.dumps(self._state(), sort_keys=True).encode())
        for path, file in sorted(self._contents().items()):
            if path not in keys:
                whole.update(f"{path} {hashlib.sha256(file.content).hexdigest()}\n".encode())
        return whole.hexdigest()

    @property
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of the first Kubernetes authority's certificate in DER.

        It identifies the cluster, and stays the same when that authority is replaced.
        """
        return (
            self.identity
            or hashlib.sha256(self.kubernetes.x509.public_bytes(Encoding.DER)).hexdigest()
        )
