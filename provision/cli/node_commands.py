"""`clusterctl node`: one machine of a running cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, Yes
from provision.cli.progress import progress
from provision.model.errors import RefusedError

if TYPE_CHECKING:
    from provision.commands.nodes import Leaving, Options

app = typer.Typer(help="Add, remove and replace single machines.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The machine's name.")]
PdbOption = Annotated[
    str,
    typer.Option(
        "--pdb",
        help="PodDisruptionBudgets that are in the way: wait for them, fail before anything is "
        "touched, or force.",
    ),
]
Timeout = Annotated[int, typer.Option("--drain-timeout", min=1, help="Seconds for the drain.")]


@app.command(epilog="Example: clusterctl node add inventories/ha.py w3")
def add(inventory: Inventory, name: Name) -> None:
    """Bring a machine of the inventory into the running cluster.

    A new worker touches only itself and one master. `clusterctl up` does it too, and looks at all.
    """
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.cli.reports import up_summary
    from provision.commands import converge, nodes

    nodes.named(inventory, name)
    with open_session(inventory, progress(), create=True, names=(name,)) as session:
        look = nodes.prepare_add(session, name).look
        with hold(session, "node add", look):
            run = nodes.prepare_add(session, name)
            up_summary(session, run, converge.up(run), Output.TABLE)


@app.command(epilog="Example: clusterctl node remove inventories/ha.py w2")
def remove(
    inventory: Inventory,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The machines' names.")],
    pdb: PdbOption = "wait",
    drain_timeout: Timeout = 300,
    force: Annotated[
        bool, typer.Option("--force", help="Also if pods that nobody makes anew are lost.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Take machines out of the cluster, also dead ones: pods, etcd member, Node, what we put there."""
    from provision.apply.lock import hold, refuse_second
    from provision.commands import nodes
    from provision.inventory import read

    options = _options(pdb, drain_timeout, force=force)
    voters = [h.name for h in read(inventory).hosts if h.name in names and "etcd" in h.roles]
    if len(voters) > 1:
        message = f"{' and '.join(voters)} are both etcd members: only one changes at a time"
        raise RefusedError(message, hint="one after the other, and look at the status in between")
    for count, name in enumerate(names):
        with nodes.leaving(inventory, name, progress(), left=names[:count]) as case:
            refuse_second(case.session, case.look)
            _agree(case, "removes", yes=yes)
            with hold(case.session, "node remove", case.look):
                nodes.remove(nodes.look_again(case), options)
        out.print(f"{name} is out of the cluster. Take its line out of {inventory}, or up adds it.")


@app.command(epilog="Example: clusterctl node replace inventories/ha.py m2")
def replace(
    inventory: Inventory,
    name: Name,
    pdb: PdbOption = "wait",
    drain_timeout: Timeout = 300,
    force: Annotated[bool, typer.Option("--force", help="Also if the machine is well.")] = False,
    yes: Yes = False,
) -> None:
    """A machine is dead or wiped: a new one of the same name takes its place.

    Machines that clusterctl makes are made anew; for others, put the new machine there first. Its
    address may be another one: correct the inventory.
    """
    from provision.apply.lock import hold, refuse_second
    from provision.apply.session import open_session
    from provision.cli.reports import up_summary
    from provision.commands import converge, nodes

    live = progress()
    with nodes.leaving(inventory, name, live) as case:
        nodes.refuse_replacing(inventory, case, force=force)
        refuse_second(case.session, case.look)
        _agree(case, "replaces", yes=yes)
        with hold(case.session, "node replace", case.look):
            now = nodes.look_again(case)
            nodes.refuse_replacing(inventory, now, force=force)
            nodes.forget(now, _options(pdb, drain_timeout, force=force))
    with open_session(inventory, live, create=True, names=(name,)) as session:
        run, _ = converge.prepare(session)
        with hold(session, "node replace", run.look):
            run = converge.look_again(run)
            up_summary(session, run, converge.up(run), Output.TABLE)


def _options(pdb: str, drain_timeout: int, *, force: bool) -> Options:
    from provision.apply.drain import Pdb
    from provision.commands.nodes import Options

    try:
        return Options(Pdb(pdb), drain_timeout, force)
    except ValueError:
        message = f"--pdb is wait, fail or force, not {pdb!r}"
        raise typer.BadParameter(message) from None


def _agree(case: Leaving, verb: str, *, yes: bool) -> None:
    """Say what is lost, and ask."""
    name, there = case.machine.name, case.there
    err.print(f"This {verb} {name} of {case.session.cluster.name}.", soft_wrap=True)
    if there.volumes:
        err.print(
            f"Volumes on its own disk are lost, of the claims {', '.join(there.volumes)}.",
            style="yellow",
            soft_wrap=True,
        )
    if there.pods:
        err.print(f"Pods that go elsewhere: {', '.join(there.pods)}", soft_wrap=True)
    if yes:
        return
    if not sys.stdin.isatty():
        message = f"{name} would leave {case.session.cluster.name}, and there is nobody to ask"
        raise RefusedError(message, hint="say --yes")
    typer.confirm("Go on?", abort=True, err=True)
