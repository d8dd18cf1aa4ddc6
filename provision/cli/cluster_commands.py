"""`up`, `plan`, `check`, `status`, `verify`, `down`, `init`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, OutputOption, Yes, print_json
from provision.cli.progress import progress
from provision.model.errors import EXIT_CHANGES, RefusedError, UnhealthyError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from provision.apply.session import Session
    from provision.inventory import Draft
    from provision.machines import MachineSource
    from provision.plan.model import Plan


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog="Example: clusterctl init --masters 3 --workers 2 > inventories/mine.py")(
        init
    )
    app.command(epilog="Example: clusterctl up inventories/ha.py")(up)
    app.command(epilog="Example: clusterctl plan inventories/ha.py")(plan)
    app.command(epilog="Example: clusterctl check inventories/machines.py")(check)
    app.command(epilog="Example: clusterctl status inventories/ha.py -o json")(status)
    app.command(epilog="Example: clusterctl verify inventories/ha.py")(verify)
    app.command(epilog="Example: clusterctl down inventories/ha.py")(down)


def init(
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "mine",
    masters: Annotated[
        str, typer.Option(help="A number, for the lab; or addresses: root@10.0.0.1,root@10.0.0.2")
    ] = "3",
    workers: Annotated[str, typer.Option(help="The same for workers.")] = "2",
) -> None:
    """Print a new inventory."""
    from provision.inventory import scaffold

    if masters.isdigit() and workers.isdigit():
        text = scaffold.lab(name, int(masters), int(workers))
    elif masters.isdigit() or (workers.isdigit() and workers != "0" and "," in masters):
        message = "give both as numbers (a lab) or both as addresses"
        raise typer.BadParameter(message)
    else:
        split = [a.strip() for a in ("" if workers.isdigit() else workers).split(",")]
        text = scaffold.machines(
            name, [a.strip() for a in masters.split(",") if a.strip()], [a for a in split if a]
        )
    sys.stdout.write(text)


def up(
    inventory: Inventory,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    yes: Yes = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Build the cluster, or bring it to what the inventory says.

    Looks at the machines, then installs, repairs, joins or leaves alone. A second run changes
    nothing; a run that was killed is finished by running it again. Machines that do not answer
    are left out, once there is a cluster; exit code 6 then.
    """
    if dry_run:
        raise typer.Exit(_plan(inventory, output))
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.cli.failures import show_findings
    from provision.cli.reports import up_summary
    from provision.commands import converge

    live = progress()
    with open_session(inventory, live, create=True, agree=_buy(yes=yes)) as session:
        name_log(session)
        run, warnings = converge.prepare(session)
        show_findings(warnings)
        report = converge.Report({}, {}, warnings)
        if not converge.settled(run):
            ask = asks(session, yes=yes)
            if ask and not run.plan.empty:
                agree(session.cluster.name, run.plan)
            with hold(session, "up", run.look):
                agreed, run = run.plan, converge.look_again(run)
                if ask and run.plan != agreed:
                    message = "the machines have changed since you were asked; nothing was touched"
                    raise RefusedError(message, hint=f"clusterctl plan {inventory}, then up again")
                if not converge.settled(run):
                    report = converge.up(run)
        up_summary(session, run, report, output)
        if run.plan.absent:
            raise typer.Exit(UnreachableError.exit_code)


def _buy(*, yes: bool) -> Callable[[MachineSource, Draft], None]:
    """Ask before machines are made that cost money."""

    def agree(source: MachineSource, draft: Draft) -> None:
        from provision.cli import planned_view
        from provision.machines import Cloud

        if yes or not isinstance(source, Cloud):
            return
        if not sys.stdin.isatty():
            message = f"machines of {draft.name} would be made, and there is nobody to ask"
            raise RefusedError(message, hint="say --yes, or look first: clusterctl plan")
        planned_view.show(source.planned(draft), source.prices(draft), err)
        typer.confirm("Make them?", abort=True, err=True)

    return agree


def asks(session: Session, *, yes: bool) -> bool:
    """Whether the user is asked before anything is changed: a lab is there to be played with."""
    return not (yes or session.draft.source.is_disposable)


def name_log(session: Session) -> None:
    err.print(f"log: {session.log.path}", style="dim", soft_wrap=True)


def agree(name: str, plan: Plan) -> None:
    """Ask before machines that are not ours to waste are changed."""
    from provision.cli import plan_view

    if not sys.stdin.isatty():
        message = f"{name} would be changed, and there is nobody to ask"
        raise RefusedError(message, hint="say --yes, or look first: clusterctl plan")
    err.print(plan_view.summary(plan))
    typer.confirm("Go on?", abort=True, err=True)


def plan(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Show what `up` would do. Exit code 0: nothing; 2: there are changes."""
    raise typer.Exit(_plan(inventory, output))


def _plan(inventory: Path, output: Output) -> int:
    from provision.apply.session import open_session
    from provision.cli import plan_view, planned_view
    from provision.cli.failures import show_findings
    from provision.commands import converge
    from provision.inventory import read
    from provision.machines import Cloud
    from provision.machines.locate import absent
    from provision.machines.sources import source_of

    draft = read(inventory)
    source = source_of(draft)
    cloud = source if isinstance(source, Cloud) else None
    planned = cloud.planned(draft) if cloud else ()
    if cloud and planned and output is Output.TABLE:
        planned_view.show(planned, cloud.prices(draft), out)
    if missing := absent(source, draft):
        if output is Output.JSON:
            cost = planned_view.as_json(planned) if planned else {}
            print_json({"changes": True, "machines_to_make": list(missing), **cost})
        else:
            out.print(f"Machines to be made: {', '.join(missing)}.")
            out.print(f"What goes on them: clusterctl machines up {inventory}, then plan again.")
        return EXIT_CHANGES
    with open_session(inventory, progress()) as session:
        run, warnings = converge.prepare(session, keep=False)
        if output is Output.JSON:
            cost = planned_view.as_json(planned) if planned else {}
            print_json({**plan_view.as_json(run.plan), **cost})
        else:
            show_findings(warnings)
            plan_view.show(run.plan, plan_view.contents(session, run.plan))
        return 0 if run.plan.empty and not planned else EXIT_CHANGES


def check(
    inventory: Inventory,
    deep: Annotated[
        bool, typer.Option("--deep", help="Hash every installed binary too; takes seconds.")
    ] = False,
) -> None:
    """Judge whether the machines are fit. Touches nothing."""
    from provision.apply.session import open_session
    from provision.cli.failures import show_findings
    from provision.commands import converge

    with open_session(inventory, progress()) as session:
        look = converge.look_at_all(session, deep=deep)
        warnings = converge.check(session, look, deep=deep)
        show_findings(warnings)
        count = len(session.cluster.machines)
        out.print(f"{session.cluster.name}: all {count} machines are fit.")
        if deep:
            binaries = sum(len(seen.binaries) for seen in look.values())
            out.print(f"All {binaries} binaries are what was installed, by their SHA-256.")


def status(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Show machines, members, components, nodes and certificates. Exit code 11: not healthy."""
    from provision.apply.session import open_session
    from provision.cli import status_view

    with open_session(inventory, progress()) as session:
        status_data = status_view.collect(session.cluster, session.observe())
    if output is Output.JSON:
        print_json(status_data)
    else:
        status_view.show(status_data)
    if not status_data["healthy"]:
        raise typer.Exit(UnhealthyError.exit_code)


def verify(inventory: Inventory) -> None:
    """Try what a cluster is for: names, pods and Services, from every node."""
    from provision.apply.session import open_session
    from provision.apply.verify import verify_alone

    with open_session(inventory, progress()) as session:
        verify_alone(session)
        out.print(f"{session.cluster.name}: everything works.")


def down(inventory: Inventory, yes: Yes = False) -> None:
    """Remove the cluster: all that we put on the machines, and the machines that we made."""
    from provision.cli.reports import down_summary
    from provision.commands.down import take_apart
    from provision.inventory import read

    draft = read(inventory)
    if not yes:
        if not sys.stdin.isatty():
            message = f"{draft.name} would be removed, and there is nobody to ask"
            raise RefusedError(message, hint="say --yes")
        answer = typer.prompt(f"This removes {draft.name} and all its data. Type its name")
        if answer != draft.name:
            message = "that is not its name: nothing was touched"
            raise RefusedError(message)
    down_summary(draft, take_apart(draft, inventory, progress()))
