"""Every certificate on a machine: the shell program that lists them, and its output as values. Pure."""

from __future__ import annotations

import base64
from binascii import Error as Base64Error
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files as resources

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provision.model.sections import Sections
from provision.pki.authority import UNREADABLE

_PURPOSES = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}


@dataclass(frozen=True)
class Certificate:
    """One certificate in one file.

    Attributes:
        path: of the file; or of the kubeconfig that contains or uses it.
        subject: `O=system:nodes, CN=system:node:w1`.
        kind: `authority`, `server`, `client`, `client, server`.
        names: DNS names and addresses that it is good for.
        signed_by: the issuer's common name.
        expires: None: the file cannot be read as a certificate.
    """

    machine: str
    path: str
    subject: str = ""
    kind: str = ""
    names: tuple[str, ...] = ()
    signed_by: str = ""
    expires: datetime | None = None

    def left(self, now: datetime) -> timedelta:
        """Time until it expires; negative after."""
        return timedelta(0) if self.expires is None else self.expires - now


@cache
def program() -> str:
    """The shell program that is run on a machine; needs root."""
    return resources(__package__).joinpath("listing.sh").read_text()


def parse(machine: str, output: str) -> tuple[Certificate, ...]:
    """What the program printed on that machine, in its order; a bundle gives several."""
    said = Sections.of(output)
    pems = {path: said.text(section) for path, section in said.named("file").items()}
    found = [c for path, pem in pems.items() for c in _certificates(machine, path, pem)]
    for path, section in said.named("config").items():
        for line in said.lines(section):
            key, _, value = line.partition(": ")
            value = value.strip("\"'")
            if key.endswith("-data"):
                found += _certificates(machine, path, _decoded(value))
            elif key == "client-certificate":
                found += _certificates(machine, path, pems.get(value, ""))
    return tuple(found)


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("ascii")
    except (Base64Error, ValueError):
        return ""


def _certificates(machine: str, path: str, pem: str) -> Iterator[Certificate]:
    try:
        for certificate in x509.load_pem_x509_certificates(pem.encode()):
            yield _certificate(machine, path, certificate)
    except UNREADABLE:
        yield Certificate(machine, path)


def _certificate(machine: str, path: str, certificate: x509.Certificate) -> Certificate:
    issuer = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        machine=machine,
        path=path,
        subject=", ".join(
            f"{attribute.rfc4514_attribute_name}={attribute.value!s}"
            for attribute in certificate.subject
        ),
        kind=_kind(certificate),
        names=_names(certificate),
        signed_by=str(issuer[0].value) if issuer else certificate.issuer.rfc4514_string(),
        expires=certificate.not_valid_after_utc,
    )


def _kind(certificate: x509.Certificate) -> str:
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "authority"
    except x509.ExtensionNotFound:
        pass
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    return ", ".join(sorted(_PURPOSES[usage] for usage in usages if usage in _PURPOSES))


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names.value)
