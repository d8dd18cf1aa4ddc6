"""Compare certificates that an external authority has signed with their requests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import PurePosixPath

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provision.model.commands import clusterctl
from provision.model.errors import Finding
from provision.pki.authority import UNREADABLE
from provision.pki.leaf import PURPOSES, WORDS, Leaf, issued_by, names, subject, usages
from provision.pki.requests import authority_file, shown_subject

AGAIN = f"make a new request: {clusterctl('certs', 'csr', 'INVENTORY', '--all', '-o', 'DIR')}"


@dataclass(frozen=True)
class Signed:
    """A certificate that the external authority returned for a request.

    Attributes:
        where: the certificate's file.
        request: PEM.
        certificate: the content of the file, not checked yet.
    """

    where: str
    leaf: Leaf
    request: str
    certificate: bytes


def read_chain(content: bytes) -> bytes:
    """Give the certificates of a file in PEM, without the file's other content.

    Raises:
        ValueError: the file has no certificate that can be read.
    """
    try:
        found = x509.load_pem_x509_certificates(content)
    except UNREADABLE:
        raise ValueError("no certificate in PEM") from None
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in found)


def authority_findings(where: str, content: bytes, now: datetime) -> Iterator[Finding]:
    """What is wrong with a file of the authorities that sign, and of the authorities above them."""
    try:
        found = x509.load_pem_x509_certificates(content)
        for certificate in found:
            yield from _authority(where, certificate, found, now)
    except UNREADABLE:
        yield Finding(where, "is not a certificate in PEM")


def _authority(
    where: str, certificate: x509.Certificate, all_of_them: list[x509.Certificate], now: datetime
) -> Iterator[Finding]:
    name = certificate.subject.rfc4514_string()
    if not _is_authority(certificate):
        yield Finding(where, f"{name} is not the certificate of an authority")
        return
    yield from _times(where, certificate, now)
    if not any(issued_by(certificate, above) for above in all_of_them):
        hint = "append the certificates of the authorities above it, up to the root"
        yield Finding(where, f"the authority that signed {name} is not in the file", hint)


def shared_findings(authorities: Mapping[str, bytes]) -> Iterator[Finding]:
    """Find authorities that are trusted for two purposes that must be kept apart.

    Args:
        authorities: file -> its certificates, PEM, which can be read.
    """
    seen: dict[bytes, str] = {}
    for where, content in authorities.items():
        for certificate in x509.load_pem_x509_certificates(content):
            key = _public(certificate)
            if key in seen and seen[key] != where:
                name = certificate.subject.rfc4514_string()
                hint = "use separate authorities: else a certificate for one purpose is accepted "
                hint += "for the other as well"
                yield Finding(where, f"{name} is in {seen[key]} too", hint)
            seen.setdefault(key, where)


def findings_of(
    signed: Signed, authorities: Iterable[x509.Certificate], now: datetime
) -> Iterator[Finding]:
    """Everything that is wrong with a certificate that the authority returned.

    Args:
        authorities: those that may have signed it; empty: the signer is not checked.
    """
    try:
        certificate = x509.load_pem_x509_certificates(signed.certificate)[0]
        request = x509.load_pem_x509_csr(signed.request.encode())
        yield from _findings(signed, certificate, request, tuple(authorities), now)
    except UNREADABLE:
        yield Finding(signed.where, "is not a certificate in PEM")


def _findings(
    signed: Signed,
    certificate: x509.Certificate,
    request: x509.CertificateSigningRequest,
    authorities: tuple[x509.Certificate, ...],
    now: datetime,
) -> Iterator[Finding]:
    where, leaf = signed.where, signed.leaf
    if _public(certificate) != _public(request):
        beside = PurePosixPath(where).with_suffix(".csr").name
        hint = f"sign the present {beside}"
        yield Finding(where, "is for another key than its request's", hint)
    user, groups = subject(certificate)
    if (user, groups) != (leaf.common_name, frozenset(leaf.organizations)):
        is_ = ", ".join((*(f"O={o}" for o in sorted(groups)), f"CN={user}"))
        hint = "the authority must copy the request's subject unchanged"
        yield Finding(where, f"its subject is {is_}, not {shown_subject(leaf)}", hint)
    missing = [u for u in sorted(leaf.usages) if PURPOSES[u] not in usages(certificate)]
    if missing:
        words = ", ".join(WORDS[usage] for usage in missing)
        yield Finding(where, f"is not for a {' and a '.join(missing)}", f"extendedKeyUsage {words}")
    if not _may_sign_handshakes(certificate):
        yield Finding(where, "may not be used in a handshake", "keyUsage digitalSignature")
    wanted = {*leaf.dns, *(str(ip_address(address)) for address in leaf.addresses)}
    if lacking := sorted(wanted - names(certificate)):
        what = f"its alternative names lack {', '.join(lacking)}"
        hint = "copy_extensions = copy, with openssl" if wanted <= names(request) else AGAIN
        yield Finding(where, what, hint)
    if _is_authority(certificate):
        yield Finding(where, "is the certificate of an authority (CA:TRUE)")
    if authorities and not any(issued_by(certificate, authority) for authority in authorities):
        by = certificate.issuer.rfc4514_string()
        hint = f"{leaf.authority} signs it; append an intermediate certificate to "
        yield Finding(
            where, f"signed by another authority, {by}", f"{hint}{authority_file(leaf.authority)}"
        )
    yield from _times(where, certificate, now)


def signed_by_one_of(certificate: bytes, authorities: Iterable[x509.Certificate]) -> bool:
    """Whether one of these authorities has signed a certificate: PEM, which can be read."""
    first = x509.load_pem_x509_certificate(certificate)
    return any(issued_by(first, authority) for authority in authorities)


def _times(where: str, certificate: x509.Certificate, now: datetime) -> Iterator[Finding]:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins > now:
        hint = "wait until then, or have it signed with an earlier start date"
        yield Finding(where, f"not valid before {begins:%Y-%m-%d %H:%M} UTC", hint)
    if ends <= now:
        yield Finding(where, f"expired on {ends:%Y-%m-%d %H:%M} UTC")


def _is_authority(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except x509.ExtensionNotFound:
        return False
    try:
        return extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _may_sign_handshakes(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature


def _public(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
