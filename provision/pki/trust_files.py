"""Read a cluster's secrets from the files that a master has, and check them. Pure."""

from __future__ import annotations

import base64
import json
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from provision.model.errors import TrustError
from provision.model.paths import PKI
from provision.pki.authority import UNREADABLE, Authority, Signer, load_signing_key
from provision.pki.trust import (
    AUTHORITIES,
    ENCRYPTION_KEY,
    NETWORK_KEY,
    SA_KEY,
    SA_PUB,
    STATE,
    Pair,
    Part,
    Rotation,
    Stage,
    Trust,
)

_RESTORE = "restore the file from another master or from a backup of the cluster's keys"


def read_trust(files: Mapping[str, bytes], now: datetime) -> Trust:
    """Read files: those that `Trust.files` returned, or kubeadm's plus clusterctl's two keys.

    Args:
        files: absolute path on a master -> content. An authority's key may be missing.
        now: aware; an authority that has expired by then is refused.

    Raises:
        TrustError: names the file and what is wrong with it. An expired authority whose key
            is elsewhere is no error here: each certificate that it has signed shows it.
    """
    state = _read_state(files)
    service_account_key = _required(files, SA_KEY)
    service_account_public = state.without_others(Part.SERVICE_ACCOUNT, _required(files, SA_PUB))
    _check_service_account(service_account_key, service_account_public)
    files = {**files, **state.certificates(files)}
    trust = Trust(
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
