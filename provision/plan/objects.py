"""The comparison of a live object with its manifest: the paths that differ. Pure.

The API adds fields with default values, and writes some values in another way. So the comparison
uses only the fields of the manifest, and the rules of a server-side apply: a value that an apply
cannot repair is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

# Maps that Kubernetes replaces as a whole: `x-kubernetes-map-type: atomic`.
_ATOMIC = frozenset({"selector", "matchLabels", "nodeSelector", "labelSelector", "roleRef"})
# Lists that Kubernetes merges, and the fields that identify an element: the list-map-keys of
# Kubernetes' OpenAPI description. Apply replaces every other list.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
# `ports` of a container and of a Service.
_PORTS = (("containerPort", "protocol"), ("port", "protocol"))
_DEFAULTS = {"protocol": "TCP"}
# Lists of words that Kubernetes merges.
_SETS = frozenset({"validationActions", "finalizers"})
# Maps, and fields, whose values are quantities.
_QUANTITIES = frozenset({"limits", "requests", "capacity", "hard", "overhead"})
_QUANTITY = frozenset({"sizeLimit", "divisor", "storage"})
_NUMBER = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i)?)")
_SUFFIXES: Mapping[str, Decimal] = {
    **{suffix: Decimal(1024) ** (n + 1) for n, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"))},
    "Ei": Decimal(1024) ** 6,
    **{suffix: Decimal(10) ** (3 * n - 9) for n, suffix in enumerate(("n", "u", "m", "", "k"))},
    **{suffix: Decimal(10) ** (3 * n + 6) for n, suffix in enumerate(("M", "G", "T", "P", "E"))},
}

Path = tuple[str, ...]


def differences(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the paths, `spec.ports[53/UDP].targetPort`, that differ from the manifest."""
    return tuple(".".join(path).replace(".[", "[") for path in _differ(wanted, live, ()))


def _differ(wanted: object, live: object, path: Path) -> Iterator[Path]:
    if _empty(wanted):
        # The API drops empty values. An empty map, or null, asks for nothing.
        if isinstance(wanted, str | list) and not _empty(live):
            yield path
    elif isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, value in wanted.items():
            yield from _differ(value, live.get(key), (*path, str(key)))
        if path and path[-1] in _ATOMIC:
            yield from ((*path, key) for key in live if key not in wanted and not _empty(live[key]))
    elif isinstance(wanted, list) and isinstance(live, list):
        yield from _differ_lists(wanted, live, path)
    elif not _same(wanted, live, path):
        yield path


def _differ_lists(wanted: Sequence[Any], live: Sequence[Any], path: Path) -> Iterator[Path]:
    name = path[-1] if path else ""
    if keys := _keys(name, wanted):
        there = {_key(element, keys): element for element in live if isinstance(element, Mapping)}
        for element in wanted:
            key = _key(element, keys)
            yield from _differ(element, there.get(key), (*path, f"[{'/'.join(key)}]"))
    elif name in _SETS:
        yield from ((*path, f"[{word}]") for word in wanted if word not in live)
    elif len(wanted) != len(live):
        yield path
    else:
        for number, (element, other) in enumerate(zip(wanted, live, strict=True)):
            yield from _differ(element, other, (*path, f"[{number}]"))


def _keys(name: str, wanted: Sequence[Any]) -> tuple[str, ...]:
    """Give the fields that identify elements of this list; empty: the order does."""
    if not all(isinstance(element, Mapping) for element in wanted):
        return ()
    if name != "ports":
        return _KEYS.get(name, ())
    return next((keys for keys in _PORTS if all(keys[0] in element for element in wanted)), ())


def _key(element: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(element.get(key, _DEFAULTS.get(key, ""))) for key in keys)


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str | list | Mapping) and not value)


def _same(wanted: object, live: object, path: Path) -> bool:
    if isinstance(wanted, bool) or isinstance(live, bool):
        return wanted is live
    if wanted == live:
        return True
    if path[-1:] and (path[-1] in _QUANTITY or any(name in _QUANTITIES for name in path[-2:-1])):
        number = quantity(wanted)
        return number is not None and number == quantity(live)
    return False


def quantity(value: object) -> Decimal | None:
    """Read a quantity of Kubernetes: `100m`, `1Gi`, `1e3`, 2; None: it is not a quantity."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    match = _NUMBER.fullmatch(str(value))
    if match is None:
        return None
    digits, exponent, suffix = match.groups()
    try:
        return Decimal(digits + (exponent or "")) * _SUFFIXES[suffix or ""]
    except ArithmeticError:
        return None
