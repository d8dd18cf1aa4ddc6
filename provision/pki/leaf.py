"""A leaf certificate as a value: find out whether it must be issued, and issue it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from functools import lru_cache
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provision.model.commands import clusterctl
from provision.model.errors import TrustError
from provision.pki.authority import (
    BACKDATE,
    UNREADABLE,
    Authority,
    authority_key_identifier,
    key_usage,
    new_key,
    private_pem,
)
from provision.pki.trust import Trust

__all__ = [
    "Authority",
    "Cause",
    "Issued",
    "Leaf",
    "Reason",
    "Usage",
    "issue",
    "issued_at",
    "problem",
]


class Cause(Enum):
    """Why a leaf is issued."""

    UNFIT = auto()  # the certificate or its key is missing or unfit
    DUE = auto()  # the certificate is good, and expires soon
    RENEWAL = auto()  # the operator asked for it
    SIGNED = auto()  # an external authority has signed a new one


@dataclass(frozen=True)
class Reason:
    """Why a leaf is issued: a few words for the operator, and the cause for decisions."""

    text: str
    cause: Cause = Cause.UNFIT

    @property
    def urgent(self) -> bool:
        """Whether programs must read the new leaf at once, not when they next read it anyway."""
        return self.cause is not Cause.DUE

    def __str__(self) -> str:
        return self.text


class Usage(StrEnum):
    """What a certificate proves: that its holder is a server, or a client."""

    SERVER = "server"
    CLIENT = "client"


PURPOSES = {
    Usage.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Usage.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}
# openssl's names of the usages.
WORDS = {Usage.SERVER: "serverAuth", Usage.CLIENT: "clientAuth"}


@dataclass(frozen=True)
class Leaf:
    """A certificate that a machine or a person should have.

    Attributes:
        name: for the plan and messages, `kube-apiserver`.
        common_name, organizations: the subject; to the API they are user and groups.
        dns, addresses: the subject's alternative names.
        cert_path, key_path: on the machine; empty for the certificate of a person.
        owner, group: of both files.
        days: its life; shorter if the authority expires earlier.
    """

    name: str
    authority: Authority
    common_name: str
    usages: frozenset[Usage]
    cert_path: str
    key_path: str
    organizations: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    owner: str = "root"
    group: str = "root"
    days: float = 365


@dataclass(frozen=True)
class Issued:
    """A leaf's certificate, followed by its chain, and its key; all PEM.

    Attributes:
        key: empty if the machine made the key.
        key_path: path on the machine of a key that the machine made; else empty.
        key_sha256: SHA-256 of a key that the machine made, hexadecimal; else empty.
    """

    leaf: Leaf
    certificate: bytes
    key: bytes = field(repr=False)
    key_path: str = ""
    key_sha256: str = ""


def problem(
    leaf: Leaf, certificate_pem: str | None, trust: Trust, now: datetime, *, reserve: float = 1 / 3
) -> Reason | None:
    """Why the leaf must be issued (again); None when it is good.

    A certificate by an external authority may have more usages and names than the leaf.

    Args:
        certificate_pem: None: the certificate is missing.
        reserve: the fraction of its life that a good certificate still has.
    """
    if certificate_pem is None:
        return Reason("missing")
    signer = trust.authority(leaf.authority)
    found = _examined(leaf, certificate_pem, signer.certificate, more=signer.key is None)
    return found if isinstance(found, Reason) else _expiry(*found, now, reserve)


# A command examines the same certificates several times, and signatures take long to verify.
@lru_cache(maxsize=1024)
def _examined(
    leaf: Leaf, certificate_pem: str, authorities_pem: bytes, *, more: bool
) -> Reason | tuple[datetime, datetime]:
    """The fault of a certificate; start and end of its validity when it has none."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        difference = _difference(leaf, certificate, more=more)
        authorities = x509.load_pem_x509_certificates(authorities_pem)
    except UNREADABLE:
        return Reason("unreadable")
    signers = _signers(certificate, authorities)
    if not signers:
        return Reason("signed by another authority")
    return difference or (certificate.not_valid_before_utc, _end(certificate, signers))


def ends(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> datetime:
    """When a certificate stops being valid.

    That is its own end or, if earlier, the latest end of these authorities that have signed it.
    """
    return _end(certificate, _signers(certificate, authorities))


def _signers(
    certificate: x509.Certificate, authorities: Iterable[x509.Certificate]
) -> list[x509.Certificate]:
    return [authority for authority in authorities if issued_by(certificate, authority)]


def _end(certificate: x509.Certificate, signers: Iterable[x509.Certificate]) -> datetime:
    own = certificate.not_valid_after_utc
    return min(own, max((a.not_valid_after_utc for a in signers), default=own))


def issued_at(certificate_pem: str | None) -> datetime | None:
    """When a certificate was issued, by the start of its validity; None if it cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificate((certificate_pem or "").encode())
    except UNREADABLE:
        return None
    return certificate.not_valid_before_utc + BACKDATE


def issue(leaf: Leaf, trust: Trust, now: datetime) -> Issued:
    """Make a new key and a certificate for it.

    Raises:
        TrustError: the authority's key is not in the cluster, the authority is not valid now, or
            the subject cannot be put into a certificate.
    """
    signer = trust.authority(leaf.authority)
    authority = signer.x509
    signing_key = signer.signing_key
    if signing_key is None:
        raise TrustError(
            f"{leaf.name}: cannot be issued, the key of {leaf.authority} is not in the cluster",
            hint=f"put it at {leaf.authority.key_path} on a master; if the authority is yours "
            f"alone, {clusterctl('certs', 'csr', 'INVENTORY', '-o', 'DIR')} writes requests, and "
            f"{clusterctl('certs', 'import', 'INVENTORY', 'DIR')} takes what it signed",
        )
    start, end = authority.not_valid_before_utc, authority.not_valid_after_utc
    if not start <= now < end:
        raise TrustError(
            f"{leaf.name}: cannot be issued, {leaf.authority} is valid from "
            f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC only",
            hint="check this computer's clock; if it is right, replace the authority",
        )
    key = new_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(leaf))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATE, start))
        .not_valid_after(min(now + timedelta(days=leaf.days), end))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([PURPOSES[usage] for usage in sorted(leaf.usages)]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_key_identifier(authority), critical=False)
    )
    if leaf.dns or leaf.addresses:
        alternatives = [
            *(x509.DNSName(name) for name in leaf.dns),
            *(x509.IPAddress(ip_address(address)) for address in leaf.addresses),
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(signing_key, hashes.SHA256()).public_bytes(Encoding.PEM)
    if leaf.authority is Authority.KUBERNETES and Usage.SERVER in leaf.usages:
        certificate += trust.cross
    return Issued(leaf, certificate, private_pem(key))


def _name(leaf: Leaf) -> x509.Name:
    try:
        return x509.Name(
            [
                *(
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)
                    for organization in leaf.organizations
                ),
                x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name),
            ]
        )
    except ValueError as error:
        raise TrustError(
            f"{leaf.name}: {leaf.common_name!r} cannot be the subject of a certificate: {error}",
            hint="a common name has 1 to 64 characters, so a machine's name at most 52",
        ) from None


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this authority's key has signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (*UNREADABLE, TypeError, InvalidSignature):
        return False
    return True


def subject(certificate: x509.Certificate) -> tuple[str, frozenset[str]]:
    """Common name and organizations, which the API reads as user and groups."""

    def values(oid: x509.ObjectIdentifier) -> list[str]:
        return [
            str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid)
        ]

    return "".join(values(NameOID.COMMON_NAME)), frozenset(values(NameOID.ORGANIZATION_NAME))


def usages(certificate: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    try:
        return frozenset(
            certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        )
    except x509.ExtensionNotFound:
        return frozenset()


def names(holder: x509.Certificate | x509.CertificateSigningRequest) -> frozenset[str]:
    try:
        extension = holder.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in extension.value)


def _difference(leaf: Leaf, certificate: x509.Certificate, *, more: bool) -> Reason | None:
    if subject(certificate) != (leaf.common_name, frozenset(leaf.organizations)):
        return Reason("subject differs")
    purposes = {PURPOSES[usage] for usage in leaf.usages}
    if not (usages(certificate) >= purposes if more else usages(certificate) == purposes):
        return Reason("usages differ")
    there = names(certificate)
    wanted = frozenset({*leaf.dns, *(str(ip_address(address)) for address in leaf.addresses)})
    if there >= wanted if more else there == wanted:
        return None
    added = [f"+{name}" for name in sorted(wanted - there)]
    removed = [] if more else [f"-{name}" for name in sorted(there - wanted)]
    return Reason(f"names differ: {' '.join(added + removed)}")


def _expiry(start: datetime, end: datetime, now: datetime, reserve: float) -> Reason | None:
    left = end - now
    if start > now:
        return Reason(f"not valid before {start:%Y-%m-%d %H:%M} UTC")
    if left <= timedelta(0):
        return Reason("expired")
    # Without the backdating: with it, a new certificate with a short life would be due at once.
    if left >= (end - start - BACKDATE) * reserve:
        return None
    if left < timedelta(days=2):
        return Reason(f"expires in {left // timedelta(hours=1)} hours", Cause.DUE)
    return Reason(f"expires in {left.days} days", Cause.DUE)
