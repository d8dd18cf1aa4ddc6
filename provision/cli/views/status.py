"""The status of a cluster, from one look at its machines."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from rich.table import Table
from rich.text import Text

from provision.apply.verify import judge
from provision.cli.console import out
from provision.desired.components import haproxy
from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.observed import Observed, api_view, unfinished
from provision.plan.addons import judge_addons, lacking_problems, replicas
from provision.plan.user_images import image_problems, missing_problems


def collect(cluster: Cluster, observed: Mapping[str, Observed]) -> dict[str, Any]:
    """The whole status as plain data. `healthy`: whether `problems` is empty."""
    api = api_view(observed)
    failures = [*judge(cluster, observed), *judge_addons(cluster, observed)]
    problems = [f"{f.machine}: {f.step}: {f.cause}" for f in failures]
    problems += [
        f"{name}: {unit.name} is {unit.active}"
        for name, view in observed.items()
        for unit in view.units.values()
        if unit.load == "loaded"
        and unit.enabled in {"enabled", "static"}
        and unit.active == "failed"
    ]
    problems += [
        f"{name}: {unit.name} is {unit.active}, but nftables has no table {unit.lacks}"
        for name, view in observed.items()
        for unit in view.units.values()
        if unit.active == "active" and unit.lacks
    ]
    problems += [
        f"{name}: {unit.name} ends again and again: systemd has restarted it {unit.restarts} times; "
        f"see journalctl -u {unit.name} there"
        for name, view in observed.items()
        for unit in view.units.values()
        if unit.sub == "auto-restart" and unit.restarts > 1
    ]
    problems += lacking_problems(cluster, observed)
    problems += [*missing_problems(cluster, observed), *image_problems(cluster, observed)]
    if api is None:
        problems.append("no apiserver is ready")
    begun = unfinished(observed)
    if begun and not any(view.holder for view in observed.values()):
        problems.append(
            f"a command that began {begun} did not finish: {clusterctl('up', cluster.inventory)}"
        )
    return {
        "cluster": cluster.name,
        "healthy": not problems,
        "problems": problems,
        "kubernetes": api.version if api else "",
        "endpoints": {"clients": cluster.endpoint, "nodes": haproxy.API},
        "machines": {m.name: _machine(cluster, observed[m.name], m.name) for m in cluster.machines},
        "etcd": _etcd(cluster, observed),
        "nodes": {
            n.name: {
                "ready": n.ready,
                "version": n.kubelet,
                "address": n.address,
                "pod_cidr": n.pod_cidr,
                "conditions": dict(n.conditions),
                "taints": list(n.taints),
                "schedulable": not n.unschedulable,
            }
            for n in (api.nodes if api else ())
        },
        "addons": {
            name: {"ready": ready, "wanted": wanted}
            for name, (ready, wanted) in (replicas(api).items() if api else ())
        },
        "certificates": _certificates(observed),
    }


def _machine(cluster: Cluster, view: Observed, name: str) -> dict[str, Any]:
    machine = cluster.machine(name)
    return {
        "address": str(machine.address),
        "roles": sorted(machine.roles),
        "reachable": view.reachable,
        "error": view.error,
        "os": view.host.os_name if view.host else "",
        "components": {
            unit.name.removesuffix(".service"): unit.active
            for unit in view.units.values()
            # A unit that a timer starts runs for a short time only.
            if unit.load == "loaded" and (unit.enabled != "static" or unit.active == "failed")
        },
        "versions": {
            path.rsplit("/", 1)[1]: binary.version for path, binary in view.binaries.items()
        },
    }


def _etcd(cluster: Cluster, observed: Mapping[str, Observed]) -> dict[str, Any]:
    members = {}
    for machine in cluster.etcd_members:
        view = observed[machine.name].etcd
        members[machine.name] = {
            "healthy": view is not None and view.healthy,
            "leader": view is not None and bool(view.id) and view.id == view.leader,
            "version": view.version if view else "",
            "db_size": view.db_size if view else 0,
            "error": view.error if view else "not running",
        }
    return members


def _certificates(observed: Mapping[str, Observed]) -> dict[str, Any]:
    now = datetime.now(UTC)
    soonest: dict[str, Any] = {}
    for name, view in observed.items():
        for path, pem in view.certificates.items():
            try:
                expires = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
            except ValueError:
                continue
            soonest.setdefault(name, {})[path] = {
                "expires": expires.isoformat(),
                "days": (expires - now).days,
            }
    return soonest


def show_status(status: dict[str, Any]) -> None:
    """Print the status as tables, then the problems."""
    word = Text("healthy", "bold green") if status["healthy"] else Text("not healthy", "bold red")
    out.print(Text.assemble((status["cluster"], "bold"), "  ", word, f"  {status['kubernetes']}"))
    out.print(
        f"API: {status['endpoints']['clients']} (on the nodes: {status['endpoints']['nodes']})"
    )
    out.print()
    _table(
        ("MACHINE", "ROLES", "ADDRESS", "OS", "NOT RUNNING"),
        [
            (
                name,
                ",".join(m["roles"]),
                m["address"],
                m["os"] if m["reachable"] else Text(m["error"].splitlines()[0], "red"),
                _down(m["components"]),
            )
            for name, m in status["machines"].items()
        ],
    )
    _table(
        ("ETCD MEMBER", "HEALTHY", "LEADER", "VERSION", "SIZE"),
        [
            (
                name,
                _yes(m["healthy"]) if m["healthy"] else Text(m["error"] or "no", "red"),
                "leader" if m["leader"] else "",
                m["version"],
                f"{m['db_size'] / 1024**2:.1f} MiB",
            )
            for name, m in status["etcd"].items()
        ],
    )
    _table(
        ("NODE", "READY", "VERSION", "PODS", "CONDITIONS"),
        [
            (
                name,
                _yes(n["ready"]),
                n["version"],
                n["pod_cidr"],
                ", ".join(k for k, v in n["conditions"].items() if k != "Ready" and v == "True"),
            )
            for name, n in status["nodes"].items()
        ],
    )
    _table(
        ("ADD-ON", "READY"),
        [(name, f"{a['ready']}/{a['wanted']}") for name, a in status["addons"].items()],
    )
    _table(
        ("CERTIFICATES ON", "FIRST TO EXPIRE", "DAYS LEFT"),
        [
            (name, first, str(certificates[first]["days"]))
            for name, certificates in status["certificates"].items()
            for first in [min(certificates, key=lambda path: certificates[path]["days"])]
        ],
    )
    for problem in status["problems"]:
        out.print(Text(f"✗ {problem}", "red"), soft_wrap=True)


def _down(components: Mapping[str, str]) -> Text:
    names = [f"{name} ({state})" for name, state in components.items() if state != "active"]
    return Text(", ".join(names), "red")


def _yes(value: bool) -> Text:
    return Text("yes", "green") if value else Text("no", "red")


def _table(headings: tuple[str, ...], rows: list[tuple[str | Text, ...]]) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)
    out.print()
