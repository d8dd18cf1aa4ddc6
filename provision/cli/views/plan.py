"""A plan, machine by machine, with diffs of the files that change; or as data."""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from rich.text import Text

from provision.apply.session import Session
from provision.cli.console import out
from provision.desired.catalog import component
from provision.plan.model import ComponentPlan, FileChange, MachinePlan, Plan
from provision.plan.node_change import NodeChange
from provision.plan.record import Removal

Contents = Mapping[str, Mapping[str, bytes]]


def contents(session: Session, plan: Plan) -> Contents:
    """Read the files on the machines that the plan changes, except secret files.

    Returns:
        Machine -> path -> the content now.
    """
    wanted = {
        name: [
            change.file.path
            for component_plan in machine.components.values()
            for change in component_plan.files
            if change.was is not None and not change.file.secret
        ]
        for name, machine in plan.machines.items()
    }
    machines = [m for m in session.cluster.machines if wanted.get(m.name)]
    if not machines:
        return {}
    fetched = session.engine.fetch(
        lambda machine: "; ".join(
            f"echo; echo '>'{quote(path)}; base64 <{quote(path)}" for path in wanted[machine.name]
        ),
        machines,
        secret=True,
    )
    return {name: _unpack(seen.output) for name, seen in fetched.items()}


def _unpack(text: str) -> dict[str, bytes]:
    found = {}
    for part in text.split("\n>")[1:]:
        path, _, encoded = part.partition("\n")
        try:
            found[path] = base64.b64decode("".join(encoded.split()), validate=True)
        except binascii.Error:
            continue
    return found


def show_plan(plan: Plan, problems: Sequence[str], there: Contents) -> None:
    """Print the plan on standard output. `problems`: `converge.problems`."""
    for name, machine in plan.machines.items():
        if not machine.empty:
            out.print(Text(name, "bold"))
            _machine(machine, there.get(name, {}))
    for name, reason in plan.absent.items():
        out.print(Text.assemble((name, "bold"), (f" is left out: {reason}", "red")), soft_wrap=True)
    if plan.apply or plan.delete:
        out.print(Text("in the cluster", "bold"))
        for change in plan.apply:
            _line("+" if change.reason == "new" else "~", f"apply {change.name}: {change.reason}")
        for gone in plan.delete:
            _line("-", f"delete {gone}")
    if plan.join:
        out.print(Text("workers of the Auto Scaling group", "bold"))
        _line("~", f"new workers run another program to join: {plan.join[:12]}")
    if any(removal.whole for m in plan.machines.values() for removal in m.remove):
        out.print("`down` removes the packages of the distribution; this plan does not.")
    if problems:
        out.print(Text("not working", "bold"))
        for problem in problems:
            _line("!", problem)
    if problems and plan.empty:
        out.print("Nothing to change. `up` verifies the cluster.")
    else:
        out.print(summary(plan))


def _machine(machine: MachinePlan, there: Mapping[str, bytes]) -> None:
    if machine.packages:
        _line("+", f"packages: {', '.join(machine.packages)}")
    if machine.binaries:
        _line("+", f"binaries: {', '.join(b.artifact for b in machine.binaries)}")
    if machine.images:
        _line("+", "images for its registry")
    for image in machine.user_images:
        _line("+", f"image {image.reference} for its registry, from {image.source}")
    if machine.form_etcd:
        _line("+", "etcd: starts a new cluster together with the other members")
    if machine.join_etcd:
        _line("+", "etcd: joins as a learner, then is promoted")
    for component_plan in machine.components.values():
        _component(component_plan, there)
    for removal in machine.remove:
        _removal(removal)
    if machine.register:
        _line("+", "joins the cluster as a node")
    if machine.node:
        _node(machine.node)


def summary(plan: Plan) -> str:
    """One line: how much the plan changes."""
    if plan.empty:
        rest = "everything else" if plan.absent else "everything"
        return f"Nothing to change: {rest} matches the inventory."
    machines = [m for m in plan.machines.values() if not m.empty]
    components = [c for m in machines for c in m.components.values()]
    files = sum(len(c.files) for c in components)
    leaves = sum(len(c.leaves) for c in components)
    acting = [u for c in components for u in c.units]
    restarts = [u for u in acting if u.action == "restart"]
    starts = [u for u in acting if u.action == "start"]
    removals = [removal for m in machines for removal in m.remove]
    gone = sum(len(r.paths) for r in removals)
    stops = sum(len(r.units) for r in removals)
    removed = f"{gone} removed paths, {stops} stops, " if removals else ""
    return (
        f"{len(machines)} machine(s) change: {files} files, {leaves} certificates, {removed}"
        f"{len(starts)} starts, {len(restarts)} restarts, "
        f"{len(plan.apply) + len(plan.delete)} manifests."
    )


def plan_as_json(plan: Plan, problems: Sequence[str]) -> dict[str, Any]:
    """The plan as data, without the content of files. `problems`: `converge.problems`."""
    return {
        "changes": not plan.empty,
        "problems": list(problems),
        "left_out": dict(plan.absent),
        "machines": {
            name: {
                "packages": list(machine.packages),
                "binaries": [b.artifact for b in machine.binaries],
                "images": machine.images,
                "user_images": {image.reference: image.source for image in machine.user_images},
                "form_etcd": machine.form_etcd,
                "join_etcd": machine.join_etcd,
                "register": machine.register,
                "labels": dict(machine.node.labels) if machine.node else {},
                "taints": list(machine.node.taints) if machine.node else [],
                "untaint": list(machine.node.untaint) if machine.node else [],
                "components": {
                    c.name: {
                        "files": {f.file.path: f.reason for f in c.files},
                        "directories": [d.path for d in c.directories],
                        "certificates": {x.leaf.cert_path: str(x.reason) for x in c.leaves},
                        "units": {
                            u.name: {"action": u.action, "reason": u.reason} for u in c.units
                        },
                    }
                    for c in machine.components.values()
                },
                "remove": {
                    r.component: {"whole": r.whole, "units": list(r.units), "paths": list(r.paths)}
                    for r in machine.remove
                },
            }
            for name, machine in plan.machines.items()
            if not machine.empty
        },
        "join": plan.join,
        "manifests": {
            "apply": {change.name: change.reason for change in plan.apply},
            "delete": list(plan.delete),
        },
    }


def _component(plan: ComponentPlan, there: Mapping[str, bytes]) -> None:
    new = bool(plan.files) and all(change.was is None for change in plan.files)
    if new:
        extra = f", {len(plan.leaves)} certificates" if plan.leaves else ""
        _line("+", f"{plan.name}: {component(plan.name).summary} ({len(plan.files)} files{extra})")
    else:
        _line("~", plan.name)
        for directory in plan.directories:
            _line("~", f"  directory {directory.path}")
        for change in plan.files:
            _file(change, there.get(change.file.path))
        for leaf in plan.leaves:
            _line("~", f"  certificate {leaf.leaf.cert_path}: {leaf.reason}")
        if plan.record and not plan.files:
            _line("~", "  the machine's record is updated")
    for unit in plan.units:
        if not new or unit.action != "start":
            _line("~", f"  {unit.action} {unit.name}: {unit.reason}")


def _node(change: NodeChange) -> None:
    for key, value in change.labels.items():
        _line("-" if value is None else "~", f"label {key}{'' if value is None else f'={value}'}")
    for taint in change.taints:
        _line("~", f"taint {taint}")
    for kind in change.untaint:
        _line("-", f"taint {kind}")
    if not (change.labels or change.taints or change.untaint):
        _line("~", "record on the Node which labels and taints clusterctl manages")


def _removal(removal: Removal) -> None:
    _line("-", f"{removal.component}{': prune' if removal.whole else ''}")
    for unit in removal.units:
        _line("-", f"  stop {unit}")
    for path in removal.paths:
        _line("-", f"  {path}")


def _file(change: FileChange, there: bytes | None) -> None:
    _line("+" if change.was is None else "~", f"  {change.file.path}: {change.reason}")
    if change.was is None or change.was.sha256 == change.file.sha256:
        return
    if change.file.secret:
        _line(" ", "    (secret: the content is not shown)")
        return
    if there is None:
        return
    lines = difflib.unified_diff(
        there.decode(errors="replace").splitlines(),
        change.file.content.decode(errors="replace").splitlines(),
        "on the machine",
        "wanted",
        lineterm="",
        n=2,
    )
    for line in lines:
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "dim")
        out.print(Text(f"      {line}", style), soft_wrap=True)


def _line(mark: str, text: str) -> None:
    style = {"+": "green", "~": "yellow", "-": "red", "!": "red"}.get(mark, "")
    out.print(Text(f"  {mark} {text}", style), soft_wrap=True)
