"""The last lines of a run: what was done, and what to type next."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from provision.apply.local_volumes import LocalVolume
from provision.apply.phases import Run
from provision.apply.session import Session
from provision.cli.console import out
from provision.cli.options import Output, print_json
from provision.commands.converge import Report
from provision.commands.down import Removed
from provision.inventory import Draft
from provision.model.commands import clusterctl


def show_up(session: Session, run: Run, report: Report, output: Output) -> None:
    """Print what `up` did, how long it took, and what to type next."""
    cluster = session.cluster
    if output is Output.JSON:
        print_json(
            {
                "cluster": cluster.name,
                "changed": {name: list(parts) for name, parts in report.changed.items()},
                "created": list(session.created),
                "left_out": dict(run.plan.absent),
                "seconds": {name: round(s, 2) for name, s in report.seconds.items()},
                "took": round(report.took, 2),
                "endpoint": cluster.endpoint,
                "artifacts": run.artifacts.source,
                "log": str(session.log.path),
                "round_trips": dict(session.engine.metrics.round_trips),
                "bytes_sent": dict(session.engine.metrics.sent),
            }
        )
        return
    if not report.changed and not report.seconds:
        rest = "everything else" if run.plan.absent else "everything"
        out.print(f"{cluster.name}: nothing to change, {rest} matches the inventory.")
        _left_out(run)
        return
    out.print(
        Text.assemble(
            (cluster.name, "bold"),
            f" is up: {len(cluster.masters)} masters, {len(cluster.workers)} workers, "
            f"Kubernetes {cluster.kubernetes}, in {report.took:.0f} s.",
        )
    )
    out.print(f"API: {cluster.endpoint}")
    path = cluster.inventory
    out.print("Next:")
    out.print(f"  {clusterctl('kubeconfig', path, '-o', 'kubeconfig')}", soft_wrap=True)
    out.print(f"  {clusterctl('kubectl', path, '--', 'get', 'nodes')}", soft_wrap=True)
    out.print(f"  {clusterctl('status', path)}", soft_wrap=True)
    _left_out(run)


def _left_out(run: Run) -> None:
    path = run.session.cluster.inventory
    for name, reason in run.plan.absent.items():
        out.print(Text(f"{name} was left out: {reason}", "red"), soft_wrap=True)
        out.print(
            f"  if the machine is lost: {clusterctl('node', 'replace', path, name)}"
            f"; to go on without it: {clusterctl('node', 'remove', path, name)}",
            soft_wrap=True,
        )


def show_kernel(name: str, settings: tuple[str, ...]) -> None:
    """Print the kernel settings that a machine keeps, if there are any."""
    if not settings:
        return
    out.print(
        f"{name}: these kernel settings stay until a reboot, because an older clusterctl did not "
        f"record the earlier values: {', '.join(settings)}",
        soft_wrap=True,
    )


def show_lost(inventory: Path, volumes: tuple[LocalVolume, ...]) -> None:
    """Print the claims whose volumes were deleted with a machine, and what to type next."""
    for volume in volumes:
        if not volume.claim:
            continue
        namespace, _, claim = volume.claim.partition("/")
        names = [f"persistentvolumeclaim/{claim}"]
        names += [f"pod/{pod.partition('/')[2]}" for pod in volume.pods]
        pods = f" Its pods wait: {', '.join(volume.pods)}." if volume.pods else ""
        out.print(
            f"The claim {volume.claim} is Lost: its volume was on the machine's disk.{pods} To start "
            "again with an empty volume, run this. A StatefulSet then makes a new claim; apply other "
            "claims again.\n"
            f"  {clusterctl('kubectl', inventory, '--', '-n', namespace)} delete {' '.join(names)}",
            style="yellow",
            soft_wrap=True,
        )


def show_down(draft: Draft, removed: Removed) -> None:
    """Print that the cluster was removed, or the machines that could not be cleaned."""
    for name, settings in removed.kernel.items():
        show_kernel(name, settings)
    if not removed.left:
        out.print(f"{draft.name} was removed.")
        return
    for name, reason in removed.left.items():
        out.print(Text(f"{name}: {reason}", "red"), soft_wrap=True)
