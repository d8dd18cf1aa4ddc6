"""Kubeconfig files: for programs on a machine, for bootstrapping kubelets, for people."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml

from provision.model.commands import clusterctl
from provision.model.errors import TrustError

BOOTSTRAP_USER = "tls-bootstrap-token-user"

_LISTS = {"clusters": "cluster", "users": "user", "contexts": "context"}


@lru_cache(maxsize=256)  # YAML is slow, and a plan asks for the same files several times
def by_files(
    server: str, ca_path: str, cert_path: str, key_path: str, user: str, cluster_name: str
) -> bytes:
    """For programs: it names the certificates by their paths on the machine; it has no secret."""
    return _kubeconfig(
        cluster_name,
        {"server": server, "certificate-authority": ca_path},
        user,
        {"client-certificate": cert_path, "client-key": key_path},
    )


def by_token(server: str, ca_path: str, token: str, cluster_name: str) -> bytes:
    """For a kubelet's TLS bootstrapping; `token` is a bootstrap token, `id.secret`.

    The kubelet copies the authority's path into the kubeconfig that it writes for itself. So that
    kubeconfig follows a change of authorities.
    """
    return _kubeconfig(
        cluster_name,
        {"server": server, "certificate-authority": ca_path},
        BOOTSTRAP_USER,
        {"token": token},
    )


def embedded(
    server: str,
    ca_pem: bytes,
    credentials: Mapping[str, str],
    user: str,
    cluster_name: str,
    context: str,
) -> bytes:
    """For people: one file that contains everything. `context` is the name of its context."""
    return _kubeconfig(
        cluster_name,
        {"server": server, "certificate-authority-data": _base64(ca_pem)},
        user,
        credentials,
        context,
    )


def by_certificate(cert_pem: bytes, key_pem: bytes) -> dict[str, str]:
    """Credentials that contain the certificate and the key, in base64."""
    return {
        "client-certificate-data": _base64(cert_pem),
        "client-key-data": _base64(key_pem),
    }


def merge(existing_text: str | None, new: bytes) -> bytes:
    """Put the entries of `new` into an existing kubeconfig, by name, and switch to its context.

    Everything else in the existing file is kept, but not its comments, as with `kubectl config`.

    Raises:
        TrustError: the existing text is not a kubeconfig.
    """
    merged = _parse(existing_text or "")
    added: dict[str, Any] = yaml.safe_load(new)
    for key in _LISTS:
        names = {entry["name"] for entry in added[key]}
        merged[key] = [e for e in merged[key] or () if e["name"] not in names] + added[key]
    merged["current-context"] = added["current-context"]
    return _dump(merged)


def _kubeconfig(
    cluster_name: str,
    cluster: Mapping[str, str],
    user: str,
    credentials: Mapping[str, str],
    context: str | None = None,
) -> bytes:
    context = context or f"{user}@{cluster_name}"
    return _dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster_name, "cluster": dict(cluster)}],
            "users": [{"name": user, "user": dict(credentials)}],
            "contexts": [{"name": context, "context": {"cluster": cluster_name, "user": user}}],
            "current-context": context,
        }
    )


def _parse(text: str) -> dict[str, Any]:
    """Read a kubeconfig; afterwards each of its lists is None or a list of named entries."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The error's own text would quote the file, which contains keys.
        mark = getattr(error, "problem_mark", None)
        raise _broken(f"no valid YAML near line {mark.line + 1}" if mark else "no YAML") from None
    if config is None:
        config = {"apiVersion": "v1", "kind": "Config"}
    if not isinstance(config, dict):
        raise _broken("not a mapping")
    if config.get("kind", "Config") != "Config":
        raise _broken(f"its kind is {config['kind']!r}, not 'Config'")
    for key in _LISTS:
        entries = config.setdefault(key, None)
        named = isinstance(entries, list) and all(
            isinstance(e, dict) and "name" in e for e in entries
        )
        if entries is not None and not named:
            raise _broken(f"{key!r} is not a list of named entries")
    return config


def _broken(why: str) -> TrustError:
    return TrustError(
        f"the existing kubeconfig cannot be merged into: {why}",
        hint="repair or move that file, or write a new one: "
        f"{clusterctl('kubeconfig', 'INVENTORY', '-o', 'FILE')}",
    )


def _dump(config: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(dict(config), sort_keys=False).encode()


def _base64(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
