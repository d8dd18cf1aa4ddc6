"""`up`, `plan`, `check`, `status`, `verify`, `down`, `init`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provision.cli.confirm import confirm, may_install
from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, OutputOption, Yes, print_json
from provision.cli.progress import progress
from provision.model.commands import clusterctl
from provision.model.errors import EXIT_CHANGES, RefusedError, UnhealthyError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from provision.apply.session import Session
    from provision.inventory import Draft
    from provision.machines import MachineSource
    from provision.plan.model import Plan

app = typer.Typer()


@app.command(epilog="Example: clusterctl init --masters 3 --workers 2 > inventories/mine.py")
def init(
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "mine",
    masters: Annotated[
        str,
        typer.Option(
            help="How many masters the lab has, or the masters' addresses: "
            "root@10.0.0.1,root@10.0.0.2"
        ),
    ] = "3",
    workers: Annotated[
        str, typer.Option(help="How many workers the lab has, or the workers' addresses.")
    ] = "2",
) -> None:
    """Print a new inventory."""
    from provision.inventory import scaffold

    if masters.isdigit() and workers.isdigit():
        text = scaffold.lab(name, int(masters), int(workers))
    elif masters.isdigit() or (workers.isdigit() and workers != "0" and "," in masters):
        message = "give --masters and --workers both as numbers (a lab), or both as addresses"
        raise typer.BadParameter(message)
    else:
        split = [a.strip() for a in ("" if workers.isdigit() else workers).split(",")]
        text = scaffold.machines(
            name, [a.strip() for a in masters.split(",") if a.strip()], [a for a in split if a]
        )
    sys.stdout.write(text)


@app.command(epilog="Example: clusterctl up inventories/ha.py")
def up(
    inventory: Inventory,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the changes, and make none.")
    ] = False,
    yes: Yes = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create the cluster, or change it to match the inventory.

    The command looks at all machines first, and changes only what differs. A second run changes
    nothing. If a run was killed, run the same command again to finish it.

    A new cluster needs every machine. In a running cluster, the command leaves out machines that
    do not answer, and ends with exit code 6.
    """
    if dry_run:
        raise typer.Exit(_plan(inventory, output))
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.cli.views.errors import show_findings
    from provision.cli.views.summaries import show_up
    from provision.commands import converge

    with open_session(
        inventory,
        progress(),
        create=True,
        agree=buy(yes=yes),
        install=may_install(yes=yes),
    ) as session:
        name_log(session)
        run, warnings = converge.prepare(session)
        show_findings(warnings)
        report = converge.Report({}, {}, session.took, warnings)
        if not converge.settled(run):
            ask = asks(session, yes=yes)
            if ask and not run.plan.empty:
                agree(session, run.plan)
            with hold(session, "up", run.look):
                agreed, run = run.plan, converge.look_again(run)
                if ask and run.plan != agreed:
                    refuse_changed(clusterctl("up", inventory))
                if not converge.settled(run):
                    report = converge.up(run)
        show_up(session, run, report, output)
        if run.plan.absent:
            raise typer.Exit(UnreachableError.exit_code)


def buy(*, yes: bool) -> Callable[[MachineSource, Draft], None]:
    """Ask before machines are made that cost money."""

    def agree(source: MachineSource, draft: Draft) -> None:
        from provision.cli.views.purchase import show_purchase
        from provision.machines import Cloud

        if yes or not isinstance(source, Cloud):
            return
        show_purchase(source.planned(draft), source.prices(draft), err)
        confirm(f"make the machines of {draft.name}", yes=yes, question="Make them?")

    return agree


def asks(session: Session, *, yes: bool) -> bool:
    """Whether the operator is asked before a change. Changes in a lab need no confirmation."""
    return not (yes or session.draft.source.is_disposable)


def name_log(session: Session) -> None:
    err.print(f"log: {session.log.path}", style="dim", soft_wrap=True)


def agree(session: Session, plan: Plan) -> None:
    """Show how much a plan changes, and ask."""
    from provision.cli.views.plan import summary

    err.print(summary(plan))
    hint = f"{clusterctl('plan', session.cluster.inventory)} shows the changes"
    confirm(f"change {session.cluster.name}", yes=False, hint=hint)


def refuse_changed(command: str) -> None:
    """Refuse a plan that is not the one that the operator has agreed to.

    Raises:
        RefusedError: always.
    """
    message = "the machines changed after you confirmed the plan; nothing was done"
    raise RefusedError(message, hint=f"run it again to see the new plan: {command}")


@app.command(epilog="Example: clusterctl plan inventories/ha.py")
def plan(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Show what `up` would change. Exit code 0: nothing; 2: something."""
    raise typer.Exit(_plan(inventory, output))


def _plan(inventory: Path, output: Output) -> int:
    from provision.apply.session import open_session
    from provision.cli.views.errors import show_findings
    from provision.cli.views.plan import contents, plan_as_json, show_plan
    from provision.cli.views.purchase import purchase_as_json, show_purchase
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
        show_purchase(planned, cloud.prices(draft), out)
    cost = purchase_as_json(planned) if planned else {}
    if missing := absent(source, draft):
        if output is Output.JSON:
            print_json({"changes": True, "machines_to_make": list(missing), **cost})
        else:
            out.print(f"These machines do not exist yet: {', '.join(missing)}.")
            out.print("To plan what is installed on them, make them first:")
            out.print(clusterctl("machines", "up", inventory), soft_wrap=True)
        return EXIT_CHANGES
    with open_session(inventory, progress()) as session:
        run, warnings = converge.prepare(session, keep=False)
        # A new cluster has nothing that could work yet.
        problems = converge.problems(run) if run.plan.running or run.plan.empty else ()
        if output is Output.JSON:
            print_json({**plan_as_json(run.plan, problems), **cost})
        else:
            show_findings(warnings)
            show_plan(run.plan, problems, contents(session, run.plan))
        return 0 if converge.settled(run) and not planned else EXIT_CHANGES


@app.command(epilog="Example: clusterctl check inventories/machines.py")
def check(
    inventory: Inventory,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also compute the SHA-256 of every installed binary."),
    ] = False,
) -> None:
    """Check that the machines can run the cluster. Changes nothing."""
    from provision.apply.session import open_session
    from provision.cli.views.errors import show_findings
    from provision.commands import converge

    with open_session(inventory, progress()) as session:
        look = converge.look_at_all(session, deep=deep)
        warnings = converge.check(session, look, deep=deep)
        show_findings(warnings)
        count = len(session.cluster.machines)
        out.print(f"{session.cluster.name}: all {count} machines pass the checks.")
        if deep:
            binaries = sum(len(seen.binaries) for seen in look.values())
            out.print(f"All {binaries} binaries have the SHA-256 that was installed.")


@app.command(epilog="Example: clusterctl status inventories/ha.py -o json")
def status(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Show the state of the cluster. Exit code 11: the cluster is not healthy.

    The command shows machines, etcd members, components, nodes and certificates.
    """
    from provision.apply.session import open_session
    from provision.cli.views.status import collect, show_status

    with open_session(inventory, progress()) as session:
        seen = collect(session.cluster, session.observe())
    if output is Output.JSON:
        print_json(seen)
    else:
        show_status(seen)
    if not seen["healthy"]:
        raise typer.Exit(UnhealthyError.exit_code)


@app.command(epilog="Example: clusterctl verify inventories/ha.py")
def verify(inventory: Inventory) -> None:
    """Test DNS, pods and Services from every node."""
    from provision.apply.session import open_session
    from provision.apply.verify import verify_alone

    with open_session(inventory, progress()) as session:
        verify_alone(session)
        out.print(f"{session.cluster.name}: DNS, pods and Services work on every node.")


@app.command(epilog="Example: clusterctl down inventories/ha.py")
def down(inventory: Inventory, yes: Yes = False) -> None:
    """Remove the cluster and all its data.

    The command removes from each machine what clusterctl installed there. Machines that clusterctl
    made are deleted.
    """
    from provision.cli.views.summaries import show_down
    from provision.commands.down import take_apart
    from provision.inventory import read

    draft = read(inventory)
    confirm(
        f"remove {draft.name}",
        yes=yes,
        question=f"This removes {draft.name} and all its data.",
        name=draft.name,
    )
    show_down(draft, take_apart(draft, inventory, progress()))
