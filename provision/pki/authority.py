"""Authorities: their certificates and private keys, and what every certificate is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

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
)
from cryptography.x509.oid import NameOID

from provision.model.paths import PKI

# Clocks of machines differ; preflight allows less than this.
BACKDATE = timedelta(minutes=5)
AUTHORITY_LIFE = timedelta(days=3650)

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
