"""The addresses of publishers' checksums, and the publishers' kinds of signatures.

Sources:
    kubernetes: kubernetes.io, "Verify Signed Kubernetes Artifacts": cosign, keyless, detached.
    containerd: its release workflow attests with GitHub's attest-build-provenance (pull request
        10543); GitHub's API has the attestations, by the file's digest.
    etcd: SHA256SUMS; scripts/release.sh makes no signature.
    runc: runc.sha256sum; its OpenPGP signatures are not verified here.
    cni-plugins, registry: a checksum beside each file, no signature.
    age: no checksums; a Sigsum proof beside each file, which is not verified here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Signer:
    """The signer that Fulcio's certificate must name; `{version}` is filled in.

    Attributes:
        identity: mail address, or the URI of a workflow.
        issuer: of the identity, as an OpenID Connect URL.
        repository: on GitHub, whose attestations have the signature; empty: the signature is
            beside the file, as FILE.sig and FILE.cert.
    """

    identity: str
    issuer: str
    repository: str = ""


@dataclass(frozen=True)
class Publisher:
    """Address of a file's checksum; `{url}`: the file's own address, `{folder}`: its folder's."""

    checksums: str
    signer: Signer | None = None


PUBLISHERS: Mapping[str, Publisher] = {
    "kubernetes": Publisher(
        "{url}.sha256",
        Signer(
            "krel-staging@k8s-releng-prod.iam.gserviceaccount.com", "https://accounts.google.com"
        ),
    ),
    "containerd": Publisher(
        "{url}.sha256sum",
        Signer(
            "https://github.com/containerd/containerd/.github/workflows/release.yml"
            "@refs/tags/v{version}",
            "https://token.actions.githubusercontent.com",
            repository="containerd/containerd",
        ),
    ),
    "etcd": Publisher("{folder}/SHA256SUMS"),
    "runc": Publisher("{folder}/runc.sha256sum"),
    "cni-plugins": Publisher("{url}.sha256"),
    "registry": Publisher("{url}.sha256"),
}
