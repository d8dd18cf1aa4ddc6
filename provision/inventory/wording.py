"""Values and pydantic's errors in words: the wrong value and what is allowed; never a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from provision.model import form
from provision.model.errors import Finding

M = TypeVar("M", bound=BaseModel)

_DEEPEST = 8
_CLOSE = 0.6  # how much alike two names are, for difflib
_SECRET = re.compile(r"pass(word|wd|phrase)|secret|token", re.I)
_USERINFO = re.compile(r"//.*@", re.S)
# The type of pydantic's error -> what is allowed.
_ALLOWED = {
    "string_type": "a text",
    "string_unicode": "a text in Unicode",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "True or False",
    "bool_parsing": "True or False",
    "dict_type": "a dict",
    "model_type": "a dict",
    "tuple_type": "a list",
    "path_type": "a file's path",
    "ip_v4_address": "an IPv4 address",
    "ip_v4_network": "an IPv4 network",
}
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def plain(value: object, where: str, findings: list[Finding], depth: int = 0) -> object:
    """Copy a value without what is not text, a number, a list or a dict; that gives a finding."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return str(value)
    if depth < _DEEPEST:
        if isinstance(value, list):
            return [plain(item, where, findings, depth + 1) for item in value]
        if isinstance(value, tuple):
            named = len(value) == 2 and isinstance(value[0], str)  # a machine and its data
            inner = f"{where}.{_key(value[0])}" if named else where
            return tuple(plain(item, inner, findings, depth + 1) for item in value)
        if isinstance(value, dict):
            named_items = ((_key(k), v) for k, v in value.items())
            return {k: plain(v, f"{where}.{k}", findings, depth + 1) for k, v in named_items}
    what = "is nested too deep" if depth >= _DEEPEST else f"is a {type(value).__name__}"
    findings.append(Finding(where, what, "write text, numbers, lists and dicts only"))
    return None


def _key(key: object) -> str:
    """A dict's key as text that can be printed."""
    text = key if isinstance(key, str) else show(key)
    return text.encode(errors="backslashreplace").decode()


def show(value: object, where: str = "") -> str:
    """Give a value as the operator would type it, shortened; never a password."""
    if _is_secret(where):
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


def _is_secret(where: str) -> bool:
    return _SECRET.search(where) is not None


def nearest(word: str, known: Iterable[str]) -> str:
    """Ask `did you mean ...?`, or list the known words."""
    known = tuple(known)
    close = get_close_matches(word.lower(), known, n=1, cutoff=_CLOSE)
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
        needed: values for required fields that are missing or wrong.

    Returns:
        the model; the findings; dotted names of the fields whose values were dropped.
    """
    try:
        return model.model_validate(raw), [], frozenset()
    except ValidationError as error:
        problems = error.errors(include_url=False)
    right: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in raw.items()}
    findings: dict[str, Finding] = {}
    broken: set[str] = set()
    for problem in problems:
        location = tuple(str(step) for step in problem["loc"] if step != "[key]")
        field = ".".join((where, *location))
        findings.setdefault(field, _finding(model, field, location, problem))
        broken.add(".".join(location[:2]))
        _drop(right, location)
    # Values are dropped down to a section's fields, and these have defaults: what is left is right.
    return model.model_validate({**needed, **right}), [*findings.values()], frozenset(broken)


def _drop(data: dict[str, Any], location: tuple[str, ...]) -> None:
    top, *rest = location
    section = data.get(top)
    if rest and isinstance(section, dict) and rest[0] in section:
        del section[rest[0]]
    elif not rest or not isinstance(section, dict):
        data.pop(top, None)


def _finding(
    model: type[BaseModel], field: str, location: tuple[str, ...], problem: ErrorDetails
) -> Finding:
    kind, value = problem["type"], problem["input"]
    if kind == "missing":
        return Finding(field, "is missing", _example(_at(model, location)))
    if kind == "extra_forbidden":
        return Finding(field, "unknown field", _known(model, location))
    return Finding(
        field, f"{show(value, field)} is not allowed", _allowed(model, field, location, problem)
    )


def _allowed(
    model: type[BaseModel], field: str, location: tuple[str, ...], problem: ErrorDetails
) -> str:
    """Say what is allowed, by the rule that failed."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    rule = _at(model, location)
    if kind == form.ERROR:
        return f"it must be {context['words']}"
    if kind in {"literal_error", form.CHOICE}:
        choices = context["choices"] if kind == form.CHOICE else _choices(rule and rule.annotation)
        return nearest(value if isinstance(value, str) else "", choices)
    if kind in _BOUNDS and rule:
        return f"it must be {_bounds(rule)}"
    if kind == "string_type" and isinstance(value, bool | int | float) and not _is_secret(field):
        return f'write "{value}"'
    if kind == "ip_v4_network" and (network := _without_host_bits(value)):
        return f"did you mean '{network}'?"
    example = _example(rule)
    return f"it must be {_ALLOWED[kind]}" + (f", {example}" if example else "")


def _known(model: type[BaseModel], location: tuple[str, ...]) -> str:
    """Name the known field that was meant, in its own section or in another one."""
    *path, name = location
    section = model
    for step in path:
        section = _section(_fields(section)[step]) or section
    if not get_close_matches(name.lower(), fields(section), n=1, cutoff=_CLOSE):
        for other, field in _fields(model).items():
            inner = _section(field)
            if inner and name in fields(inner):
                return f'it is a field of {other!r}: "{other}": {{"{name}": ...}}'
    return nearest(name, fields(section))


def _choices(annotation: object) -> tuple[str, ...]:
    """Give the texts of a Literal, wherever it is in a type."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))


def _bounds(field: FieldInfo) -> str:
    least = [rule.ge for rule in field.metadata if isinstance(rule, Ge)]
    above = [rule.gt for rule in field.metadata if isinstance(rule, Gt)]
    most = [rule.le for rule in field.metadata if isinstance(rule, Le)]
    if least and most:
        return f"{least[0]} to {most[0]}"
    words = [f"at least {limit}" for limit in least]
    words += [f"more than {limit}" for limit in above]
    words += [f"at most {limit}" for limit in most]
    return " and ".join(words)


def _example(field: FieldInfo | None) -> str:
    """Show a value that the field takes; empty where there is none to show."""
    value = field and example(field)
    return "" if value is None or isinstance(value, bool) else f"such as {value!r}"


def example(field: FieldInfo) -> object:
    """A value that the field takes, as the file has it; None for a secret.

    It is the field's first example, else its default; a section's first field with an example.
    """
    if section := _section(field):
        inner = {name: example(f) for name, f in _fields(section).items()}
        return next({name: value} for name, value in inner.items() if value is not None)
    if field.examples:
        return field.examples[0]
    default = field.get_default(call_default_factory=True)
    if default in (None, "", (), {}) or not field.repr:
        return None
    return default if isinstance(default, bool | int | float) else str(default)


def _without_host_bits(value: object) -> IPv4Network | None:
    try:
        return IPv4Network(value, strict=False) if isinstance(value, str) else None
    except ValueError:
        return None


def fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Names that a file may use for the fields of a model."""
    return tuple(_fields(model))


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {f.alias or name: f for name, f in model.model_fields.items() if not f.exclude}


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _at(model: type[BaseModel], location: tuple[str, ...]) -> FieldInfo | None:
    """The field at a place; of a place in a list or a dict, the field that has it."""
    found = None
    for step in location:
        found = _fields(model).get(step)
        section = found and _section(found)
        if section is None:
            break
        model = section
    return found
