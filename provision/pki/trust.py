"""A cluster's secrets: its authorities, the service-account key pair, two symmetric keys.

They are made once, with the cluster, and then read back from a master. `rotation` replaces them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from provision.model.errors import TrustError
from provision.model.paths import PKI

# Clocks of machines differ; preflight allows less than this.
BACKDATE = timedelta(minutes=5)
AUTHORITY_LIFE = timedelta(days=3650)

SA_KEY = f"{PKI}/sa.key"
SA_PUB = f"{PKI}/sa.pub"
ENCRYPTION_KEY = f"{PKI}/encryption.key"
NETWORK_KEY = f"{PKI}/network.key"
# The certificate that belongs to ca.key; ca.crt may have others beside it.
SIGNING_CA = f"{PKI}/signing-ca.crt"
# kubeadm's layout has no place for the generation and for the replacements under way.
STATE = f"{PKI}/trust.json"

_RESTORE = "restore the file from another master or from a backup of the cluster's keys"

# cryptography raises these for a damaged certificate, on loading it or on reading its extensions.
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

# Private keys that an authority may have: clusterctl makes ECDSA P-256, kubeadm makes RSA.
SigningKey = EllipticCurvePrivateKey | RSAPrivateKey


class Authority(StrEnum):
    """A certificate authority of the cluster. The value is part of its common name."""

    KUBERNETES = "kubernetes-ca"
    ETCD = "etcd-ca"
    FRONT_PROXY = "front-proxy-ca"

    @property
    def cert_path(self) -> str:
        """Its certificate on every master."""
        return f"{PKI}/{_STEMS[self]}.crt"

    @property
    def key_path(self) -> str:
        """Its private key on every master, unless the authority is external."""
        return f"{PKI}/{_STEMS[self]}.key"


_STEMS = {
    Authority.KUBERNETES: "ca",
    Authority.ETCD: "etcd/ca",
    Authority.FRONT_PROXY: "front-proxy-ca",
}


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


@dataclass(frozen=True)
class Signer:
    """An authority's certificate and private key, both PEM; without a key it is external.

    For an external authority, `certificate` may have several certificates: those of the accepted
    authorities, and those of the authorities above them.
    """

    certificate: bytes
    key: bytes | None = field(repr=False)

    @property
    def accepted(self) -> list[x509.Certificate]:
        """All certificates whose signatures count as this authority's."""
        return x509.load_pem_x509_certificates(self.certificate)

    @property
    def x509(self) -> x509.Certificate:
        """The certificate in use; of several, the first."""
        return x509.load_pem_x509_certificate(self.certificate)

    @property
    def signing_key(self) -> SigningKey | None:
        return None if self.key is None else load_signing_key(self.key)


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

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], now: datetime) -> Trust:
        """Read files: those that `files` returned, or kubeadm's plus clusterctl's two keys.

        Args:
            files: absolute path on a master -> content. An authority's key may be missing.
            now: aware; an authority that has expired by then is refused.

        Raises:
            TrustError: names the file and what is wrong with it. An expired authority whose key
                is elsewhere is no error here: each certificate that it has signed shows it.
        """
        state = _read_state(files)
        service_account_key = _required(files, SA_KEY)
        service_account_public = state.without_others(
            Part.SERVICE_ACCOUNT, _required(files, SA_PUB)
        )
        _check_service_account(service_account_key, service_account_public)
        files = {**files, **state.certificates(files)}
        trust = cls(
            kubernetes=_read_authority(files, Authority.KUBERNETES, now),
            etcd=_read_authority(files, Authority.ETCD, now),
            front_proxy=_read_authority(files, Authority.FRONT_PROXY, now),
            service_account_key=service_account_key,
            service_account_public=service_account_public,
            encryption_key=_read_encryption_key(_required(files, ENCRYPTION_KEY)),
            network_key=_read_network_key(_required(files, NETWORK_KEY)),
            encryption_name=state.encryption_name,
            cross=state.cross,
            identity=state.identity,
            generation=state.generation,
            rotations=state.rotations,
        )
        if state.digest and state.digest != trust.digest:
            raise TrustError(
                f"{PKI} has files of different generations: what wrote them was stopped",
                hint="another master, or the operator's cache, has them whole",
            )
        return trust

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


def new_key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def private_pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_signing_key(pem: bytes) -> SigningKey:
    """Load an unencrypted RSA or ECDSA key.

    Raises:
        ValueError: the PEM is something else.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:  # TypeError: the key is encrypted
        raise ValueError(str(error)) from error
    if not isinstance(key, SigningKey):
        raise ValueError("neither RSA nor ECDSA")  # noqa: TRY004 - one kind of error for callers
    return key


def public_pem(key: SigningKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def create_authority(common_name: str, now: datetime) -> Signer:
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + AUTHORITY_LIFE)
        # At most one authority below it: an authority signs the one that replaces it.
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(key_usage(digital_signature=True, key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Signer(certificate.public_bytes(Encoding.PEM), private_pem(key))


def key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The extension by which a certificate names the key that signed it."""
    try:
        identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(
            authority.public_key()  # type: ignore[arg-type] # RSA or ECDSA, else no signing key
        )
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


@dataclass(frozen=True)
class _State:
    """The content of the state file. Without that file, nothing was ever replaced."""

    identity: str = ""
    generation: int = 0
    digest: str = ""
    encryption_name: str = "key1"
    cross: bytes = b""
    rotations: tuple[Rotation, ...] = ()

    def without_others(self, part: Part, content: bytes) -> bytes:
        """The first entry of a bundle: the one in use."""
        for rotation in self.rotations:
            if rotation.part is part:
                return content.removesuffix(rotation.other.public)
        return content

    def certificates(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        return {
            authority.cert_path: self.without_others(part, files[authority.cert_path])
            for part, authority in AUTHORITIES.items()
            if authority.cert_path in files
        }


def _read_state(files: Mapping[str, bytes]) -> _State:
    if STATE not in files:
        return _State()
    try:
        state = json.loads(files[STATE])
        return _State(
            identity=state["identity"],
            generation=state["generation"],
            digest=state["digest"],
            encryption_name=state["encryption_name"],
            cross=state["cross"].encode(),
            rotations=tuple(
                Rotation(
                    Part(r["part"]),
                    Stage(r["stage"]),
                    Pair(r["public"].encode(), r["private"] and r["private"].encode()),
                    r["since"] and datetime.fromisoformat(r["since"]),
                )
                for r in state["rotations"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TrustError(f"{STATE} cannot be read", hint=_RESTORE) from None


def _required(files: Mapping[str, bytes], path: str) -> bytes:
    try:
        return files[path]
    except KeyError:
        raise TrustError(f"{path} is missing", hint=_RESTORE) from None


def _read_authority(files: Mapping[str, bytes], authority: Authority, now: datetime) -> Signer:
    signer = Signer(_required(files, authority.cert_path), files.get(authority.key_path))
    try:
        certificate = signer.x509
        is_authority = _is_authority(certificate)
        public_key = certificate.public_key()
    except UNREADABLE:
        raise TrustError(f"{authority.cert_path} is not a PEM certificate", hint=_RESTORE) from None
    if not is_authority:
        raise TrustError(
            f"{authority.cert_path} is not the certificate of an authority (no CA:TRUE)",
            hint=_RESTORE,
        )
    # An expired external authority must still be read: a new certificate can then replace it.
    if signer.key is not None and certificate.not_valid_after_utc <= now:
        raise TrustError(
            f"{authority.cert_path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint="replace the authority, or check this computer's clock",
        )
    try:
        key = signer.signing_key
    except ValueError:
        raise TrustError(
            f"{authority.key_path} is not an unencrypted RSA or ECDSA private key in PEM",
            hint=_RESTORE,
        ) from None
    if key is not None and key.public_key() != public_key:
        raise TrustError(
            f"{authority.key_path} does not belong to {authority.cert_path}", hint=_RESTORE
        )
    return signer


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _check_service_account(private: bytes, public: bytes) -> None:
    try:
        key = load_signing_key(private)
    except ValueError:
        raise TrustError(
            f"{SA_KEY} is not an unencrypted RSA or ECDSA private key in PEM", hint=_RESTORE
        ) from None
    try:
        belongs = load_pem_public_key(public) == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError(f"{SA_PUB} is not a PEM public key", hint=_RESTORE) from None
    if not belongs:
        raise TrustError(f"{SA_KEY} does not belong to {SA_PUB}", hint=_RESTORE)


def _read_encryption_key(content: bytes) -> str:
    try:
        length = len(base64.b64decode(content.strip(), validate=True))
    except Base64Error:
        length = 0
    if length != 32:
        raise TrustError(f"{ENCRYPTION_KEY} is not 32 bytes in base64", hint=_RESTORE)
    return content.strip().decode()


def _read_network_key(content: bytes) -> str:
    key = content.strip()
    # The key is written between quotes into the configuration of other programs.
    if len(key) < 32 or not key.isalnum():
        raise TrustError(f"{NETWORK_KEY} is not 32 or more letters and digits", hint=_RESTORE)
    return key.decode()
