"""The apiserver's answers to the probe -> values. Pure."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field, TypeAdapter

from provision.model.observed import ApiView, NodeView
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


class _Version(BaseModel):
    git_version: str = Field(alias="gitVersion")


_STRINGS = TypeAdapter(dict[str, str])
_TYPED = TypeAdapter(tuple[_Typed, ...])


def _unready(answer: str) -> str:
    """The checks that fail, in an apiserver's answer to /readyz; it lists all of about forty."""
    failing = re.findall(r"\[-\]([\w/.-]+)", answer)
    return f"fails: {', '.join(failing)}" if failing else answer.rpartition("\n")[2] or "no answer"


def view(output: Sections) -> ApiView | None:
    if "api-ready" not in output:
        return None
    nodes: list[NodeView] = []
    applied: dict[str, str] = {}
    deployments: dict[str, tuple[int, int]] = {}
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
            elif kind == "deployment" and len(fields) == 3:
                deployments[fields[0]] = (int(fields[1] or 0), int(fields[2] or 0))
            elif kind == "applied" and len(fields) == 1:
                applied |= _STRINGS.validate_json(fields[0] or "{}")
            elif not re.match(r"[EWI]\d{4} ", kind):  # not a line of kubectl's log
                problems.append(line)
    return ApiView(
        ready=not problems,
        version=_version("\n".join(output.lines("api-version"))),
        nodes=tuple(nodes),
        applied=applied,
        deployments=deployments,
        error="; ".join(problems),
    )


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
