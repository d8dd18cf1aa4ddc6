"""Rules of other programs: of DNS, of labels and taints in Kubernetes, of SSH's host keys."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

from provision.inventory.wording import nearest, show
from provision.model.cluster import Taint
from provision.model.errors import Finding

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_HOSTNAME = re.compile(rf"(?=.{{1,63}}$){_LABEL}(\.{_LABEL})*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_FLAG = re.compile(r"[a-z][a-zA-Z0-9-]*")
_REGISTRY = re.compile(rf"({_LABEL}(\.{_LABEL})*)(:[0-9]{{1,5}})?")
_RESERVED = "node-role.kubernetes.io/"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


# X.509 has 64 characters for a common name, and a node's is system:node:NAME.
NODE_NAME = 64 - len("system:node:")


def is_hostname(name: str) -> bool:
    """Whether it can be a machine's hostname (63 characters on Linux) and its Node's name."""
    return _HOSTNAME.fullmatch(name) is not None and not is_address(name)


def is_domain(name: str) -> bool:
    return _SUBDOMAIN.fullmatch(name) is not None


def is_flag(name: str) -> bool:
    return _FLAG.fullmatch(name) is not None


def is_registry(name: str) -> bool:
    return _REGISTRY.fullmatch(name) is not None


def is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def is_network(text: str) -> bool:
    try:
        IPv4Network(text)
    except ValueError:
        return False
    return True


def is_usable(address: IPv4Address) -> bool:
    """Whether a machine can have this address and another machine can reach it there."""
    return not (
        address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or int(address) >> 24 == 0
        or int(address) >> 28 == 15
    )


def is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def has_user(url: str) -> bool:
    return "@" in urlsplit(url).netloc


def without_login(url: str) -> str:
    """Give a URL without the user and the password in it, to show it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_endpoint(text: str) -> bool:
    """Whether it is a URL that a shell program can have without quotes."""
    return (
        is_url(text) and re.fullmatch(r"https?://[\w.:-]+(/[\w.-]+)*/?", text, re.ASCII) is not None
    )


def is_region(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9-]+", text) is not None


def is_s3_key(text: str) -> bool:
    """Whether it can be between the quotes of curl's configuration."""
    return re.fullmatch(r"[\w+/=.-]*", text, re.ASCII) is not None


def is_host_key(text: str) -> bool:
    """Whether it is `TYPE BASE64`, and the key has the same type (RFC 4253, 6.6)."""
    kind, _, rest = text.partition(" ")
    try:
        blob = base64.b64decode((rest.split() or [""])[0], validate=True)
    except (binascii.Error, ValueError):
        return False
    length = int.from_bytes(blob[:4], "big")
    return bool(kind) and blob[4 : 4 + length] == kind.encode() and len(blob) > 4 + length


def labels(values: Mapping[str, str], where: str) -> Iterator[Finding]:
    for key, value in values.items():
        yield from _key(key, f"{where}.{key}", "label")
        if value and not _QUALIFIED.fullmatch(value):
            yield Finding(f"{where}.{key}", f"{show(value)} is not a label's value", _CHARACTERS)


_CHARACTERS = (
    "63 letters, digits, '-', '_' and '.' at most; it begins and ends with a letter or a digit"
)


def taint(text: str, where: str) -> tuple[Taint | None, list[Finding]]:
    """Read a taint as kubectl writes it, `key[=value]:effect`."""
    rest, colon, effect = text.rpartition(":")
    if not colon:
        hint = "write key=value:NoSchedule, or key:NoSchedule"
        return None, [Finding(where, f"{show(text)} is not a taint", hint)]
    key, _, value = rest.partition("=")
    findings = list(_key(key, where, "taint"))
    if value and not _QUALIFIED.fullmatch(value):
        findings.append(Finding(where, f"{show(value)} is not a taint's value", _CHARACTERS))
    if effect not in _EFFECTS:
        findings.append(
            Finding(where, f"{show(effect)} is not a taint's effect", nearest(effect, _EFFECTS))
        )
    if findings:
        return None, findings
    return Taint.model_validate({"key": key, "value": value, "effect": effect}), []


def _key(key: str, where: str, what: str) -> Iterator[Finding]:
    prefix, slash, name = key.rpartition("/")
    if key.startswith(_RESERVED):
        hint = "the groups are the roles; `masters_schedulable` lets masters run ordinary pods"
        yield Finding(where, f"clusterctl sets the {what} {show(key)}", hint)
    elif not _QUALIFIED.fullmatch(name) or (slash and not is_domain(prefix)):
        hint = f"write a name, or domain/name; a name has {_CHARACTERS}"
        yield Finding(where, f"{show(key)} is not a {what}'s key", hint)
