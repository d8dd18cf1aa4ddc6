"""Values and pydantic's errors in words: what was found, what is allowed; never a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from provision.model.errors import Finding

M = TypeVar("M", bound=BaseModel)

_DEEPEST = 8
_SECRET = re.compile(r"pass(word|wd|phrase)|secret|token", re.I)
_USERINFO = re.compile(r"//.*@", re.S)
_ALLOWED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "True or False",
    "bool_parsing": "True or False",
    "dict_type": "a dict",
    "model_type": "a dict",
    "tuple_type": "a list",
    "path_type": "a file's path",
    "ip_v4_address": "an IPv4 address, such as 192.0.2.10",
    "ip_v4_network": "an IPv4 network, such as 10.244.0.0/16",
    "string_pattern_mismatch": "lower-case letters, digits and '-', 40 characters at most",
}

# Of fields whose pattern is another than that of names.
_FORMS = {
    "cluster.state": "s3://BUCKET/PREFIX",
    "cluster.ec2.owner": "letters, digits, spaces and _.@+-, 128 characters at most",
    "cluster.ec2.vpc": "a VPC's id, such as vpc-0123456789abcdef0",
}


def plain(value: object, where: str, findings: list[Finding], depth: int = 0) -> object:
    """Copy a value, leaving out, with a finding, what is not text, number, list or dict."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return str(value)
    if depth < _DEEPEST:
        if isinstance(value, list):
            return [plain(item, where, findings, depth + 1) for item in value]
        if isinstance(value, tuple):
            named = len(value) == 2 and isinstance(value[0], str)  # a machine and its data
            inner = f"{where}.{value[0]}" if named else where
            return tuple(plain(item, inner, findings, depth + 1) for item in value)
        if isinstance(value, dict):
            named_items = ((k if isinstance(k, str) else show(k), v) for k, v in value.items())
            return {k: plain(v, f"{where}.{k}", findings, depth + 1) for k, v in named_items}
    what = "is nested too deep" if depth >= _DEEPEST else f"is a {type(value).__name__}"
    # What the file calls it need not be text that can be printed.
    printable = where.encode(errors="backslashreplace").decode()
    findings.append(Finding(printable, what, "text, numbers, lists and dicts are allowed"))
    return None


def show(value: object, where: str = "") -> str:
    """Give a value as it would be typed, short; passwords never."""
    if _SECRET.search(where):
        return "the value (hidden)"
    if isinstance(value, str):
        masked = _USERINFO.sub("//...@", value)
        return repr(masked if len(masked) <= 60 else masked[:57] + "...")
    if isinstance(value, Path):
        return repr(str(value))
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < 10**20 else "a huge number"
    return f"a {type(value).__name__}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Ask `did you mean ...?`, or list what is known."""
    known = tuple(known)
    close = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}"


def validate(
    model: type[M], raw: Mapping[str, object], where: str, needed: Mapping[str, object]
) -> tuple[M, list[Finding], frozenset[str]]:
    """Make the model of what is right in `raw`, and a finding of each thing that is wrong.

    Args:
        model: to make.
        raw: plain values.
        where: prefix of the findings' fields.
        needed: stands in for required fields that are missing or wrong.

    Returns:
        the model; the findings; dotted names of the fields whose values were dropped.
    """
    data: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in raw.items()}
    findings: dict[str, Finding] = {}
    broken: set[str] = set()
    while True:
        try:
            return model.model_validate(data), list(findings.values()), frozenset(broken)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                location = tuple(str(step) for step in problem["loc"] if step != "[key]")
                field = ".".join((where, *location))
                findings.setdefault(field, _finding(model, field, problem))
                broken.add(".".join(location[:2]))
                _drop(data, location, needed)


def _drop(data: dict[str, Any], location: tuple[str, ...], needed: Mapping[str, object]) -> None:
    top = location[0]
    inner = data.get(top)
    if len(location) > 1 and isinstance(inner, dict) and location[1] in inner:
        del inner[location[1]]
    elif top in needed:
        data[top] = needed[top]
    else:
        data.pop(top, None)


def _finding(model: type[BaseModel], field: str, problem: ErrorDetails) -> Finding:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "missing":
        return Finding(field, "is missing")
    if kind == "extra_forbidden":
        *path, name = (str(step) for step in problem["loc"])
        return Finding(field, "unknown field", nearest(name, fields(model, path)))
    what = f"{show(value, field)} is not allowed"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']+)'", context["expected"])
        hint = nearest(value if isinstance(value, str) else "", allowed)
    elif kind in {"greater_than_equal", "less_than_equal"}:
        hint = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
    elif kind == "string_type" and isinstance(value, bool | int | float) and "hidden" not in what:
        hint = f'write "{value}"'
    elif kind == "ip_v4_network" and (network := _without_host_bits(value)):
        hint = f"did you mean '{network}'?"
    elif kind == "string_pattern_mismatch" and field in _FORMS:
        hint = f"it must be {_FORMS[field]}"
    else:
        hint = f"it must be {_ALLOWED.get(kind, problem['msg'])}"
    return Finding(field, what, hint)


def _without_host_bits(value: object) -> IPv4Network | None:
    try:
        return IPv4Network(cast("str", value), strict=False)
    except (ValueError, TypeError):
        return None


def fields(model: type[BaseModel], path: Iterable[str] = ()) -> tuple[str, ...]:
    """Names that a file may use at a place in the model."""
    for step in path:
        annotation = model.model_fields[step].annotation
        choices = (annotation, *get_args(annotation))
        model = next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
    return tuple(f.alias or n for n, f in model.model_fields.items() if not f.exclude)
