"""`clusterctl node`: add, remove and replace machines of a running cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from provision.cli.confirm import confirm, may_install
from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, Yes
from provision.cli.progress import progress
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError

if TYPE_CHECKING:
    from provision.commands.nodes import Leaving, Options

app = typer.Typer(
    help="Add, remove and replace machines of a running cluster.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The machine's name.")]
PdbOption = Annotated[
    Literal["wait", "fail", "force"],
    typer.Option(
        "--pdb",
        help="If a PodDisruptionBudget blocks the drain: wait for it, fail before any change, or "
        "force the drain.",
    ),
]
Timeout = Annotated[
    int, typer.Option("--drain-timeout", min=1, help="The longest time for the drain, in seconds.")
]


@app.command(epilog="Example: clusterctl node add inventories/ha.py w3")
def add(inventory: Inventory, name: Name, yes: Yes = False) -> None:
    """Add a machine of the inventory to the running cluster.

    To add a worker, the command changes only that machine and one master. `clusterctl up` adds
    machines too, but checks all machines.
    """
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import agree, asks, buy, refuse_changed
    from provision.cli.views.summaries import show_up
    from provision.commands import converge, nodes

    nodes.named(inventory, name)
    with open_session(
        inventory,
        progress(),
        create=True,
        names=(name,),
        agree=buy(yes=yes),
        install=may_install(yes=yes),
    ) as session:
        run = nodes.prepare_add(session, name)
        ask = asks(session, yes=yes)
        if ask and not run.plan.empty:
            agree(session, run.plan)
        with hold(session, "node add", run.look):
            agreed, run = run.plan, nodes.prepare_add(session, name)
            if ask and run.plan != agreed:
                refuse_changed(clusterctl("node", "add", inventory, name))
            show_up(session, run, converge.up(run), Output.TABLE)


@app.command(epilog="Example: clusterctl node remove inventories/ha.py w2")
def remove(
    inventory: Inventory,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="The machines' names.")],
    pdb: PdbOption = "wait",
    drain_timeout: Timeout = 300,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Remove it even if pods are lost that no controller creates again."
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Remove machines from the cluster. The machines may be dead.

    The command moves the pods away, removes the etcd member and the Node, and removes from the
    machine what clusterctl installed there.
    """
    from provision.apply.lock import hold, refuse_second
    from provision.cli.views.summaries import show_kernel, show_lost
    from provision.commands import nodes
    from provision.inventory import read

    options = _options(pdb, drain_timeout, force=force)
    voters = [h.name for h in read(inventory).hosts if h.name in names and "etcd" in h.roles]
    if len(voters) > 1:
        message = f"refusing to remove several etcd members at once: {', '.join(voters)}"
        hint = f"remove one; then run {clusterctl('status', inventory)} before you remove the next"
        raise RefusedError(message, hint=hint)
    for count, name in enumerate(names):
        with nodes.leaving(inventory, name, progress(), left=names[:count]) as case:
            refuse_second(case.session, case.look)
            _agree(case, "remove", yes=yes)
            with hold(case.session, "node remove", case.look):
                left = nodes.remove(nodes.look_again(case), options)
        show_kernel(name, left.kernel)
        show_lost(inventory, left.volumes)
        out.print(
            f"{name} was removed. Delete its line from {inventory}; else the next `up` adds it again.",
            soft_wrap=True,
        )


@app.command(epilog="Example: clusterctl node replace inventories/ha.py m2")
def replace(
    inventory: Inventory,
    name: Name,
    pdb: PdbOption = "wait",
    drain_timeout: Timeout = 300,
    force: Annotated[
        bool, typer.Option("--force", help="Replace it even if the machine is healthy.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Replace a dead or empty machine with a new machine.

    The new machine has the same name. If clusterctl made the machine, it makes a new one. Otherwise, set up the new machine first. If
    its address differs, write the new address into the inventory.
    """
    from provision.apply.local_volumes import lost
    from provision.apply.lock import hold, refuse_second
    from provision.apply.session import open_session
    from provision.cli.views.summaries import show_lost, show_up
    from provision.commands import converge, nodes

    live = progress()
    with nodes.leaving(inventory, name, live) as case:
        nodes.refuse_replacing(inventory, case, force=force)
        refuse_second(case.session, case.look)
        _agree(case, "replace", yes=yes)
        with hold(case.session, "node replace", case.look):
            now = nodes.look_again(case)
            nodes.refuse_replacing(inventory, now, force=force)
            left = nodes.forget(now, _options(pdb, drain_timeout, force=force))
    claims = left.volumes
    install = may_install(yes=yes)
    try:
        with open_session(inventory, live, create=True, names=(name,), install=install) as session:
            run, _ = converge.prepare(session)
            with hold(session, "node replace", run.look):
                run = converge.look_again(run)
                show_up(session, run, converge.up(run), Output.TABLE)
            claims = lost(session, run.look.leader(but=name), left.volumes)
    finally:
        # The volumes are deleted even if the new machine failed.
        show_lost(inventory, claims)


def _options(pdb: Literal["wait", "fail", "force"], drain_timeout: int, *, force: bool) -> Options:
    from provision.apply.drain import Pdb
    from provision.commands.nodes import Options

    return Options(Pdb(pdb), drain_timeout, force)


def _agree(case: Leaving, verb: str, *, yes: bool) -> None:
    """Show what is lost, and ask."""
    name, there = case.machine.name, case.there
    change = f"{verb} {name} of {case.session.cluster.name}"
    err.print(f"This command will {change}.", soft_wrap=True)
    if there.volumes:
        volumes = ", ".join(map(str, there.volumes))
        err.print(
            f"Volumes on its disk will be deleted, and their data is lost: {volumes}",
            style="yellow",
            soft_wrap=True,
        )
    if there.pods:
        err.print(f"Pods that move to other nodes: {', '.join(there.pods)}", soft_wrap=True)
    confirm(change, yes=yes)
