"""Replace an authority or a key of a cluster while it is in use, in stages. Pure.

    begin      every machine is to accept the new one; no machine uses it yet
    advance    the new one signs; machines still accept what the old one signed
    advance    machines no longer accept what the old one signed
    advance    the old one is forgotten

The next stage begins only when every machine has reached the current one. Each function returns a
Trust of the next generation.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from provision.model.errors import TrustError
from provision.pki.authority import (
    BACKDATE,
    Signer,
    authority_key_identifier,
    create_authority,
    key_usage,
    new_key,
    private_pem,
    public_pem,
)
from provision.pki.trust import AUTHORITIES, Pair, Part, Rotation, Stage, Trust

__all__ = ["AUTHORITIES", "Part", "Stage", "advance", "begin", "reached"]

_NEXT = {Stage.INTRODUCED: Stage.ACTIVE, Stage.ACTIVE: Stage.WITHDRAWN}


def begin(trust: Trust, parts: Iterable[Part], cluster_name: str, now: datetime) -> Trust:
    """Make new authorities or keys, which machines accept beside those in use.

    Raises:
        TrustError: a part is already being replaced, or its key is not in the cluster.
    """
    rotations = list(trust.rotations)
    for part in parts:
        if trust.rotation(part) is not None:
            raise TrustError(f"{part} is being replaced already", hint="finish that first")
        rotations.append(Rotation(part, Stage.INTRODUCED, _new(trust, part, cluster_name, now)))
    return _next(trust, rotations=tuple(rotations))


def advance(trust: Trust, parts: Iterable[Part], now: datetime) -> Trust:
    """Bring each of these parts that is being replaced to its next stage."""
    wanted = set(parts)
    rotations = []
    changed = trust
    for rotation in trust.rotations:
        if rotation.part not in wanted:
            rotations.append(rotation)
            continue
        after = _NEXT.get(rotation.stage)
        if after is None:
            continue
        other = rotation.other
        if after is Stage.ACTIVE:
            changed, other = _swap(changed, rotation.part, rotation.other, now)
        rotations.append(Rotation(rotation.part, after, other))
    return _next(changed, rotations=tuple(rotations))


def reached(trust: Trust, parts: Iterable[Part], now: datetime) -> Trust:
    """Note that all machines have reached the current stage of these parts."""
    wanted = set(parts)
    return _next(
        trust,
        rotations=tuple(
            replace(rotation, since=now) if rotation.part in wanted else rotation
            for rotation in trust.rotations
        ),
    )


def _next(trust: Trust, **values: object) -> Trust:
    # It stays the same cluster when its authority changes.
    return replace(
        trust,
        identity=trust.fingerprint,
        generation=trust.generation + 1,
        **values,  # type: ignore[arg-type]
    )


def _new(trust: Trust, part: Part, cluster_name: str, now: datetime) -> Pair:
    if part is Part.ENCRYPTION:
        number = int(trust.encryption_name.removeprefix("key")) + 1
        return Pair(f"key{number}".encode(), base64.b64encode(secrets.token_bytes(32)))
    if part is Part.SERVICE_ACCOUNT:
        key = new_key()
        return Pair(public_pem(key), private_pem(key))
    authority = AUTHORITIES[part]
    if trust.authority(authority).key is None:
        raise TrustError(
            f"{authority} cannot be replaced: its key is not in the cluster",
            hint="it is an authority of your own: replace it there",
        )
    # Its name differs from the old one's, so that a certificate shows which authority signed it.
    signer = create_authority(f"{cluster_name} {authority} {trust.generation + 1}", now)
    return Pair(signer.certificate, signer.key)


def _swap(trust: Trust, part: Part, coming: Pair, now: datetime) -> tuple[Trust, Pair]:
    """The Trust that uses the coming pair, and the pair that was in use until now."""
    if part is Part.ENCRYPTION:
        going = Pair(trust.encryption_name.encode(), trust.encryption_key.encode())
        name, key = coming.public.decode(), (coming.private or b"").decode()
        return replace(trust, encryption_name=name, encryption_key=key), going
    if part is Part.SERVICE_ACCOUNT:
        going = Pair(trust.service_account_public, trust.service_account_key)
        private = coming.private or b""
        trust = replace(trust, service_account_key=private, service_account_public=coming.public)
        return trust, going
    old, new = trust.authority(AUTHORITIES[part]), Signer(coming.public, coming.private)
    # The old authority's key signs nothing any more: only its certificate is needed.
    going = Pair(old.certificate, None)
    if part is Part.KUBERNETES:
        return replace(trust, kubernetes=new, cross=_cross(old, new, now)), going
    if part is Part.ETCD:
        return replace(trust, etcd=new), going
    return replace(trust, front_proxy=new), going


def _cross(old: Signer, new: Signer, now: datetime) -> bytes:
    """The new authority's certificate, signed by the old one.

    Servers send it in their chain, so that clients that know only the old authority accept them:
    people with older kubeconfigs, and pods that read the authority when they started. Empty if the
    old authority may not sign another one.
    """
    signer, subject, key = old.x509, new.x509, old.signing_key
    limit = signer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    if key is None or limit == 0:
        return b""
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject.subject)
        .issuer_name(signer.subject)
        .public_key(subject.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATE, signer.not_valid_before_utc))
        .not_valid_after(min(subject.not_valid_after_utc, signer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(digital_signature=True, key_cert_sign=True), critical=True)
        .add_extension(
            subject.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value,
            critical=False,
        )
        .add_extension(authority_key_identifier(signer), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)
