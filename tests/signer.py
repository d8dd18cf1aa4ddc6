"""A Sigstore for tests: authority, log of certificates, transparency log, and root of trust.

It follows the descriptions of the formats (RFC 6962, transparency-dev's signed notes, DSSE, Rekor's
API) and uses none of Sigstore's code. So Sigstore's library verifies signatures of an independent
implementation.
"""

import base64
import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

OIDC_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
SCTS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
STATEMENT = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def b64(content):
    return base64.b64encode(content).decode()


def der(key):
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key, content):
    return key.sign(content, ec.ECDSA(hashes.SHA256()))


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def sha256(content):
    return hashlib.sha256(content).digest()


class Sigstore:
    """Signs for every identity, because it is only for tests."""

    def __init__(self):
        self.now = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
        self.authority, self.certificates, self.log = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fulcio of a test")])
        self.root = (
            self._builder(self.name, self.authority, timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(self.authority, hashes.SHA256())
        )
        self.entries = []

    def trusted_root(self):
        valid = {"start": (self.now - timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")}

        def instance(host, key):
            public = {"rawBytes": b64(der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
            return {
                "baseUrl": f"https://{host}",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {**public, "validFor": valid},
                "logId": {"keyId": b64(sha256(der(key)))},
            }

        chain = [{"rawBytes": b64(self.root.public_bytes(serialization.Encoding.DER))}]
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [instance("rekor.test", self.log)],
            "ctlogs": [instance("ctfe.test", self.certificates)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "test", "commonName": "fulcio of a test"},
                    "uri": "https://fulcio.test",
                    "certChain": {"certificates": chain},
                    "validFor": valid,
                }
            ],
            "timestampAuthorities": [],
        }

    def detached(self, content, identity, issuer):
        """A file's FILE.sig and FILE.cert, as `cosign sign-blob` writes them, with a log entry."""
        key, certificate = self._certificate(identity, issuer)
        signature, pem = b64(sign(key, content)), b64(_pem(certificate))
        self._enter(
            "hashedrekord",
            {
                "data": {"hash": {"algorithm": "sha256", "value": sha256(content).hex()}},
                "signature": {"content": signature, "publicKey": {"content": pem}},
            },
        )
        return signature.encode(), pem.encode()

    def attested(self, digest, identity, issuer):
        """A bundle with a statement about the file with this digest."""
        key, certificate = self._certificate(identity, issuer)
        subject = {"name": "file", "digest": {"sha256": digest}}
        payload = canonical({"_type": "https://in-toto.io/Statement/v1", "subject": [subject]})
        signature = sign(
            key, f"DSSEv1 {len(STATEMENT)} {STATEMENT} {len(payload)} ".encode() + payload
        )
        body = {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": sha256(payload).hex()},
            "signatures": [{"signature": b64(signature), "verifier": b64(_pem(certificate))}],
        }
        entry = self._enter("dsse", body)
        proof = entry["verification"]["inclusionProof"]
        raw = certificate.public_bytes(serialization.Encoding.DER)
        return {
            "mediaType": BUNDLE,
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(raw)},
                "tlogEntries": [
                    {
                        "logIndex": str(entry["logIndex"]),
                        "logId": {"keyId": b64(bytes.fromhex(entry["logID"]))},
                        "kindVersion": {"kind": "dsse", "version": "0.0.1"},
                        "integratedTime": str(entry["integratedTime"]),
                        "inclusionPromise": {
                            "signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"]
                        },
                        "inclusionProof": {
                            "logIndex": str(proof["logIndex"]),
                            "rootHash": b64(bytes.fromhex(proof["rootHash"])),
                            "treeSize": str(proof["treeSize"]),
                            "hashes": [b64(bytes.fromhex(h)) for h in proof["hashes"]],
                            "checkpoint": {"envelope": proof["checkpoint"]},
                        },
                        "canonicalizedBody": entry["body"],
                    }
                ],
            },
            "dsseEnvelope": {
                "payload": b64(payload),
                "payloadType": STATEMENT,
                "signatures": [{"sig": b64(signature)}],
            },
        }

    def retrieve(self, asked):
        """Rekor's answer to POST /api/v1/log/entries/retrieve."""
        wanted = [b64(canonical(entry)) for entry in asked["entries"]]
        return [{sha256(e["body"].encode()).hex(): e} for e in self.entries if e["body"] in wanted]

    def _builder(self, subject, key, life):
        public = key.public_key()
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(minutes=5))
            .not_valid_after(self.now + life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(authority, critical=False)
        )

    def _certificate(self, identity, issuer):
        """A key for one use, and its certificate for ten minutes with the SCT of the log."""
        key = ec.generate_private_key(ec.SECP256R1())
        who = (x509.RFC822Name if "://" not in identity else x509.UniformResourceIdentifier)(
            identity
        )
        builder = (
            self._builder(x509.Name([]), key, timedelta(minutes=10))
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([who]), critical=True)
            .add_extension(x509.UnrecognizedExtension(OIDC_ISSUER, issuer.encode()), critical=False)
        )
        tbs = builder.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes
        stamp = int(self.now.timestamp() * 1000)
        length = struct.pack("!I", len(tbs))[1:]
        signed = struct.pack("!BBQH", 0, 0, stamp, 1) + sha256(der(self.authority)) + length + tbs
        signature = sign(self.certificates, signed + struct.pack("!H", 0))
        sct = struct.pack("!B", 0) + sha256(der(self.certificates)) + struct.pack("!QH", stamp, 0)
        sct += struct.pack("!BBH", 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        octets = b"\x04" + (
            bytes([len(listed)]) if len(listed) < 128 else bytes([0x81, len(listed)])
        )
        extension = x509.UnrecognizedExtension(SCTS, octets + listed)
        return key, builder.add_extension(extension, critical=False).sign(
            self.authority, hashes.SHA256()
        )

    def _enter(self, kind, spec):
        """Write the second entry of a log. The first entry belongs to another signer."""
        body = canonical({"apiVersion": "0.0.1", "kind": kind, "spec": spec})
        other = sha256(b"\0somebody else's")
        root = sha256(b"\1" + other + sha256(b"\0" + body))
        note = f"rekor.test - 1\n2\n{b64(root)}\n"
        key_id = sha256(der(self.log))
        signed = b64(key_id[:4] + sign(self.log, note.encode()))
        entry = {
            "body": b64(body),
            "integratedTime": int(self.now.timestamp()) + len(self.entries),
            "logID": key_id.hex(),
            "logIndex": 1,
        }
        entry["verification"] = {
            "signedEntryTimestamp": b64(sign(self.log, canonical(entry))),
            "inclusionProof": {
                "logIndex": 1,
                "treeSize": 2,
                "rootHash": root.hex(),
                "hashes": [other.hex()],
                "checkpoint": f"{note}\n\u2014 rekor.test {signed}\n",
            },
        }
        self.entries.append(entry)
        return entry


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def _usage(*, sign_certificates):
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
