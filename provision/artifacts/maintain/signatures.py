"""Verify publishers' signatures with Sigstore's own library.

It verifies the certificate's chain at the time in the transparency log, the certificate's entry in
the certificates' log, the log's proof that it has the signature, the signer, and the signature.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from pydantic import ValidationError
from sigstore.errors import Error as SigstoreError
from sigstore.hashes import Hashed
from sigstore.models import Bundle, ClientTrustConfig, TrustedRoot
from sigstore.verify import Verifier, policy
from sigstore_models.common.v1 import HashAlgorithm

from provision.artifacts.maintain.publishers import Signer
from provision.artifacts.maintain.web import Web
from provision.model.errors import ArtifactError

REKOR = "https://rekor.sigstore.dev/api/v1/log/entries/retrieve"
ATTESTATIONS = "https://api.github.com/repos/{repository}/attestations/sha256:{sha256}"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_STATEMENT = "application/vnd.in-toto+json"


class Signatures:
    """Verifies signatures against one root of trust."""

    def __init__(self, web: Web, trusted_root: Path | None = None) -> None:
        """Load a root of trust: from a file, or Sigstore's public root by its update protocol.

        Raises:
            ArtifactError: the root of trust cannot be loaded.
        """
        self._web = web
        try:
            root = (
                TrustedRoot.from_file(str(trusted_root))
                if trusted_root
                else ClientTrustConfig.production().trusted_root
            )
            self._verifier = Verifier(trusted_root=root)
        except (SigstoreError, OSError, ValueError) as error:
            message = f"Sigstore's root of trust cannot be loaded: {error}"
            hint = "give trusted_root.json of Sigstore's TUF repository: --trusted-root FILE"
            raise ArtifactError(message, hint=hint) from error

    def verify(self, url: str, sha256: str, version: str, signer: Signer) -> str:
        """Verify that `signer` signed the file at `url`.

        Returns:
            the signer's identity.

        Raises:
            ArtifactError: there is no signature, or it is by another signer or of another file.
        """
        who = signer.identity.format(version=version)
        expected = policy.Identity(identity=who, issuer=signer.issuer)
        try:
            if signer.repository:
                self._attested(signer.repository, sha256, expected)
            else:
                self._detached(url, sha256, expected)
        except (SigstoreError, ValidationError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{url}: the signature of {who} is not valid: {error}",
                hint="nothing was written; if the publisher signs in another way now, correct"
                " provision/artifacts/maintain/publishers.py",
            ) from error
        return who

    def _detached(self, url: str, sha256: str, expected: policy.VerificationPolicy) -> None:
        """Verify FILE.sig and FILE.cert of cosign, with the entry in the transparency log Rekor."""
        signature = self._web.read(f"{url}.sig").strip().decode()
        certificate = load_pem_x509_certificate(_pem(self._web.read(f"{url}.cert")))
        pem = base64.b64encode(certificate.public_bytes(Encoding.PEM)).decode()
        entry = {
            "kind": "hashedrekord",
            "apiVersion": "0.0.1",
            "spec": {
                "signature": {"content": signature, "publicKey": {"content": pem}},
                "data": {"hash": {"algorithm": "sha256", "value": sha256}},
            },
        }
        found = [
            log for each in self._web.json(REKOR, {"entries": [entry]}) for log in each.values()
        ]
        if not found:
            raise ArtifactError(
                f"{url}: the transparency log does not have its signature",
                hint="nothing was written; the publisher did not enter this signature in Rekor",
            )
        # Anyone may enter the signature again later: the first entry counts.
        oldest = min(found, key=lambda log: int(log["integratedTime"]))
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        bundle = {
            "mediaType": _BUNDLE,
            "verificationMaterial": {
                "certificate": {"rawBytes": _der(certificate.public_bytes(Encoding.DER))},
                "tlogEntries": [_tlog_entry(oldest)],
            },
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
                "signature": signature,
            },
        }
        hashed = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(sha256))
        self._verifier.verify_artifact(hashed, Bundle.from_json(json.dumps(bundle)), expected)

    def _attested(self, repository: str, sha256: str, expected: policy.VerificationPolicy) -> None:
        """Verify that one of GitHub's attestations for this digest is valid."""
        answer = self._web.json(ATTESTATIONS.format(repository=repository, sha256=sha256))
        bundles = [each["bundle"] for each in answer["attestations"] if each.get("bundle")]
        problem = "there is none"
        for bundle in bundles:
            try:
                kind, payload = self._verifier.verify_dsse(
                    Bundle.from_json(json.dumps(bundle)), expected
                )
            except SigstoreError as error:
                problem = str(error)
                continue
            subjects = json.loads(payload)["subject"] if kind == _STATEMENT else []
            if any(subject["digest"].get("sha256") == sha256 for subject in subjects):
                return
            problem = "it is about another file"
        raise ValueError(problem)


def _pem(content: bytes) -> bytes:
    """Decode a certificate: cosign encodes PEM in base64 a second time."""
    if content.startswith(b"-----"):
        return content
    try:
        return base64.b64decode(content, validate=False)
    except binascii.Error as error:
        raise ValueError("FILE.cert is not a certificate") from error


def _der(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _tlog_entry(log: dict[str, Any]) -> dict[str, Any]:
    """Convert Rekor's answer to the form of a bundle."""
    body = json.loads(base64.b64decode(log["body"]))
    proof = log["verification"]["inclusionProof"]

    def as_base64(digits: str) -> str:
        return base64.b64encode(bytes.fromhex(digits)).decode()

    return {
        "logIndex": str(log["logIndex"]),
        "logId": {"keyId": as_base64(log["logID"])},
        "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
        "integratedTime": str(log["integratedTime"]),
        "inclusionPromise": {
            "signedEntryTimestamp": log["verification"]["signedEntryTimestamp"],
        },
        "inclusionProof": {
            "logIndex": str(proof["logIndex"]),
            "rootHash": as_base64(proof["rootHash"]),
            "treeSize": str(proof["treeSize"]),
            "hashes": [as_base64(each) for each in proof["hashes"]],
            "checkpoint": {"envelope": proof["checkpoint"]},
        },
        "canonicalizedBody": log["body"],
    }
