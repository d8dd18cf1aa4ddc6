"""The apiserver's answers to the probe -> values. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter

from provision.model.observed import ApiView, NodeView, PodView
from provision.model.sections import SectionError, Sections, reading


class _Taint(BaseModel):
    key: str
    value: str = ""
    effect: str = ""


class _NodeSpec(BaseModel):
    pod_cidr: str = Field(default="", alias="podCIDR")
    taints: tuple[_Taint, ...] = ()
    unschedulable: bool = False


class _Typed(BaseModel):
    type: str
    address: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class _Waiting(BaseModel):
    reason: str = ""
    message: str = ""


class _State(BaseModel):
    waiting: _Waiting | None = None


class _Container(BaseModel):
    state: _State = _State()


class _Version(BaseModel):
    git_version: str = Field(alias="gitVersion")


_OBJECT = TypeAdapter(dict[str, Any])
_CONTAINERS = TypeAdapter(tuple[_Container, ...])
_STRINGS = TypeAdapter(dict[str, str])
_TYPED = TypeAdapter(tuple[_Typed, ...])


def _unready(answer: str) -> str:
    """Name the failing checks in an apiserver's answer to /readyz. It lists about forty checks."""
    failing = re.findall(r"\[-\]([\w/.-]+)", answer)
    return f"fails: {', '.join(failing)}" if failing else answer.rpartition("\n")[2] or "no answer"


def view(output: Sections) -> ApiView | None:
    if "api-ready" not in output:
        return None
    nodes: list[NodeView] = []
    applied: dict[str, str] = {}
    answer = output.lines("api-ready")
    problems = [] if answer == ["ok"] else [_unready("\n".join(answer))]
    if "api-objects" not in output:
        raise SectionError("section 'api-objects' is missing")
    # A new cluster has no objects yet.
    for line in output.lines("api-objects"):
        kind, *fields = line.split("\t")
        with reading("api-objects"):
            if kind == "node" and len(fields) == 7:
                nodes.append(_node(*fields))
            elif kind == "applied" and len(fields) == 1:
                applied |= _STRINGS.validate_json(fields[0] or "{}")
            elif not _is_log(line):
                problems.append(line)
    live, given = _live(output, "manifests"), _live(output, "given-manifests")
    return ApiView(
        ready=not problems,
        version=_version("\n".join(output.lines("api-version"))),
        nodes=tuple(nodes),
        applied=applied,
        objects=live.objects,
        given=given.objects,
        unread="; ".join((*live.problems, *given.problems)),
        waiting=live.waiting,
        authority=output.text("authority"),
        error="; ".join(problems),
    )


def _is_log(line: str) -> bool:
    """Whether the line is from kubectl's log or an API warning: kubectl continues after both."""
    return re.match(r"[EWI]\d{4} |Warning: ", line) is not None


class _Live(NamedTuple):
    objects: tuple[dict[str, Any], ...] | None
    problems: tuple[str, ...] = ()
    waiting: tuple[PodView, ...] = ()


def _live(output: Sections, section: str) -> _Live:
    if section not in output:
        return _Live(None)
    objects: list[dict[str, Any]] = []
    waiting: list[PodView] = []
    problems: list[str] = []
    lines = output.lines(section)
    # The kind itself does not exist: then the object does not exist.
    unknown_kind = any("no matches for kind" in line for line in lines)
    for line in lines:
        kind, *fields = line.split("\t")
        with reading(section):
            if kind == "object" and len(fields) == 1:
                objects.append(_OBJECT.validate_json(fields[0]))
            elif kind == "object" and len(fields) == 5:
                objects.append(_named(*fields))
            elif kind == "pod" and len(fields) == 5:
                waiting += _waiting(*fields)
            elif kind != "pods" and not _is_log(line) and not (unknown_kind and _tells(line)):
                problems.append(line)
    return _Live(None if problems else tuple(objects), tuple(problems), tuple(waiting))


def _tells(line: str) -> bool:
    """Whether the line belongs to kubectl's message that it does not know a kind."""
    return (
        "no matches for kind" in line
        or line.startswith("ensure CRDs are installed")
        or line == "kubectl's exit status is 1"
    )


def _named(version: str, kind: str, namespace: str, name: str, deleted: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "deletionTimestamp": deleted}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {key: value for key, value in metadata.items() if value},
    }


def _waiting(
    namespace: str, name: str, labels: str, conditions: str, containers: str
) -> Iterator[PodView]:
    """Give the pod if it is not ready."""
    states = {c.type: c for c in _TYPED.validate_json(conditions or "[]")}
    if "Ready" in states and states["Ready"].status == "True":
        return
    reasons = [
        f"{waiting.reason}: {waiting.message}".strip(": ")
        for container in _CONTAINERS.validate_json(containers or "[]")
        if (waiting := container.state.waiting)
    ]
    scheduled = states.get("PodScheduled")
    if scheduled and scheduled.status == "False":
        reasons.append(f"{scheduled.reason}: {scheduled.message}".strip(": "))
    why = "; ".join(reasons) or "it is not ready"
    yield PodView(namespace, name, _STRINGS.validate_json(labels or "{}"), why)


def _version(answer: str) -> str:
    try:
        return _Version.model_validate_json(answer).git_version.removeprefix("v")
    except ValueError:
        return ""  # the answers to the other requests show the error


def _node(
    name: str,
    labels: str,
    spec: str,
    addresses: str,
    conditions: str,
    kubelet: str,
    annotations: str,
) -> NodeView:
    states = {c.type: c.status for c in _TYPED.validate_json(conditions or "[]")}
    declared = _NodeSpec.model_validate_json(spec or "{}")
    return NodeView(
        name=name,
        ready=states.get("Ready") == "True",
        address=next(
            (a.address for a in _TYPED.validate_json(addresses or "[]") if a.type == "InternalIP"),
            "",
        ),
        kubelet=kubelet,
        pod_cidr=declared.pod_cidr,
        conditions=states,
        labels=_STRINGS.validate_json(labels or "{}"),
        annotations=_STRINGS.validate_json(annotations or "{}"),
        taints=tuple(
            f"{t.key}={t.value}:{t.effect}" if t.value else f"{t.key}:{t.effect}"
            for t in declared.taints
        ),
        unschedulable=declared.unschedulable,
    )
