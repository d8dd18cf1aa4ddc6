"""`clusterctl certs`: see certificates, renew them, replace authorities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, OutputOption, Yes, print_json
from provision.cli.progress import progress
from provision.model.errors import EXIT_DUE, RefusedError, UnreachableError

if TYPE_CHECKING:
    from provision.apply.phases import Run
    from provision.apply.session import Session
    from provision.commands.certs.renewal import Report
    from provision.pki.trust import Part


class Replaceable(StrEnum):
    """What `rotate-ca` replaces."""

    KUBERNETES = "kubernetes"
    ETCD = "etcd"
    FRONT_PROXY = "front-proxy"
    SERVICE_ACCOUNT = "service-account"


app = typer.Typer(help="See certificates, renew them, replace authorities.", no_args_is_help=True)


@app.command("list", epilog="Example: clusterctl certs list inventories/ha.py --warn-days 60")
def list_(
    inventory: Inventory,
    output: OutputOption = Output.TABLE,
    warn_days: Annotated[
        float, typer.Option(help="Exit with 2 if a certificate has fewer days left.", min=0)
    ] = 30,
) -> None:
    """Show every certificate on every machine, kubeconfigs' and authorities' too.

    Asks the machines themselves: works when the API does not.
    """
    from provision.apply.session import open_session
    from provision.cli import certs_view
    from provision.commands.certs import listing

    with open_session(inventory, progress()) as session:
        machines = session.cluster.machines
        answers = session.engine.fetch(lambda _: listing.program(), machines)
    now, warn = datetime.now(UTC), timedelta(days=warn_days)
    certificates = [c for name, a in answers.items() for c in listing.parse(name, a.output)]
    if output is Output.JSON:
        print_json(certs_view.as_json(certificates, now))
    else:
        certs_view.show(certificates, now, warn)
    if silent := {name: answer for name, answer in answers.items() if answer.error}:
        reasons = "; ".join(f"{name}: {answer.error}" for name, answer in silent.items())
        message = f"not all certificates could be seen: {reasons}"
        raise UnreachableError(message, hint=next(iter(silent.values())).hint)
    if any(c.left(now) < warn for c in certificates):
        raise typer.Exit(EXIT_DUE)


@app.command(epilog="Example: clusterctl certs renew inventories/ha.py --all")
def renew(
    inventory: Inventory,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="kube-apiserver, kubelet-client, ..."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every one of them.")] = False,
    yes: Yes = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Issue certificates anew, with new keys: one machine after the other, each healthy first.

    Authorities stay. A run that was stopped goes on where it was, if that was within a day.
    """
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import name_log
    from provision.commands.certs import external_requests, renewal

    if everything == bool(names):
        message = "say which, or --all"
        raise typer.BadParameter(message)
    wanted = frozenset(names or ())
    with open_session(inventory, progress()) as session:
        external_requests.refuse_external(session.cluster, "nothing is renewed here")
        name_log(session)
        prepare = partial(renewal.prepare, session, wanted)
        with _agreed(session, "certs renew", prepare, yes=yes) as run:
            report = renewal.renew(run, wanted)
    _issued(report, "renewed", output)


@app.command(epilog="Example: clusterctl certs recover inventories/ha.py")
def recover(inventory: Inventory, yes: Yes = False, output: OutputOption = Output.TABLE) -> None:
    """Bring back a cluster whose certificates have expired. SSH is all that is needed."""
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import name_log
    from provision.commands.certs import external_requests, renewal

    with open_session(inventory, progress()) as session:
        what = "what has expired must be signed there"
        external_requests.refuse_external(session.cluster, what)
        name_log(session)
        prepare = partial(renewal.prepare_recovery, session)
        with _agreed(session, "certs recover", prepare, yes=yes) as run:
            if run.plan.empty:
                out.print(f"{session.cluster.name}: nothing has expired.")
                return
            report = renewal.recover(run)
    _issued(report, "issued", output)


@contextmanager
def _agreed(
    session: Session, command: str, prepare: Callable[[], Run], *, yes: bool
) -> Iterator[Run]:
    """Plan, ask and lock; then plan anew, since others may have been at work meanwhile.

    While a question waits nothing else runs here, a lock's heartbeat neither: so nobody is asked who
    has the lock.
    """
    from provision.apply.lock import hold
    from provision.cli.cluster_commands import agree, asks

    agreed = None
    if asks(session, yes=yes):
        planned = prepare()
        look, agreed = planned.look, planned.plan
        if not agreed.empty:
            agree(session.cluster.name, agreed)
    else:
        look = session.observe()
    with hold(session, command, look):
        run = prepare()
        if agreed not in (None, run.plan):
            message = "the machines have changed since you were asked; nothing was touched"
            raise RefusedError(message, hint="the same command again")
        yield run


def _issued(report: Report, done: str, output: Output) -> None:
    if output is Output.JSON:
        print_json({"issued": report.issued, "seconds": report.seconds})
        return
    count = sum(len(names) for names in report.issued.values())
    seconds = sum(report.seconds.values())
    machines = f"{len(report.issued)} machines"
    out.print(f"{count} certificates {done} on {machines}, in {seconds:.0f} s.")


@app.command(
    epilog="Example: clusterctl certs csr inventories/external_requests.py -o to-be-signed"
)
def csr(
    inventory: Inventory,
    directory: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Where the requests go.", file_okay=False
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Only these; left out: those that are needed."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every one of them.")] = False,
) -> None:
    """Ask an external authority for certificates: one file for each, and an index.

    Keys are made on the machines, and stay there.
    """
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import name_log
    from provision.commands.certs import external_requests
    from provision.local import private_file
    from provision.pki import requests

    with open_session(inventory, progress()) as session:
        external_requests.refuse_own(session.cluster)
        name_log(session)
        with hold(session, "certs csr", session.observe()):
            made = external_requests.request_certificates(
                session, frozenset(names or ()), everything=everything
            )
    if not made:
        out.print(f"{session.cluster.name} needs no certificate; --all asks for all anew.")
        return
    for name, content in requests.outgoing(made).items():
        private_file.write(directory / name, content)
    count = sum(len(asked) for asked in made.values())
    out.print(f"{count} requests are in {directory}, listed in INDEX.txt there.", soft_wrap=True)
    out.print("Have each signed into a file beside it that ends in .crt, and put the certificates")
    out.print("of the authorities there: kubernetes-ca.crt, etcd-ca.crt, front-proxy-ca.crt. Then:")
    out.print(f"clusterctl certs import {inventory} {directory}", soft_wrap=True)


@app.command(
    "import", epilog="Example: clusterctl certs import inventories/external_requests.py signed"
)
def import_(
    inventory: Inventory,
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="That of `certs csr`.", exists=True, file_okay=False),
    ],
    yes: Yes = False,
) -> None:
    """Take what an external authority has signed: all of it, or nothing if anything is wrong.

    A cluster that runs uses it at once, one machine after the other, each healthy first.
    """
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import asks, name_log
    from provision.commands.certs import external_import, external_requests

    with open_session(inventory, progress()) as session:
        external_requests.refuse_own(session.cluster)
        name_log(session)
        if asks(session, yes=yes):
            question = f"Import certificates of {session.cluster.name} from {directory}?"
            typer.confirm(question, abort=True, err=True)
        with hold(session, "certs import", session.observe()):
            done = external_import.import_signed(session, directory)
    count = sum(len(names) for names in (done.issued or done.waiting).values())
    if done.issued or not (done.waiting or done.others):
        seconds = sum(done.seconds.values())
        out.print(f"{count} certificates are in use, after {seconds:.0f} s.")
    else:
        out.print(f"{count} certificates are on their machines. Now:")
        if done.others:
            where = ", ".join(done.others)
            err.print(
                f"More is to change than they, which `up` shows before: {where}", soft_wrap=True
            )
        out.print(f"clusterctl up {inventory}", soft_wrap=True)


@app.command("rotate-ca", epilog="Example: clusterctl certs rotate-ca inventories/ha.py")
def rotate_ca(
    inventory: Inventory,
    ca: Annotated[
        list[Replaceable] | None,
        typer.Option("--ca", help="Which; may be repeated. Left out: the three authorities."),
    ] = None,
    distrust: Annotated[
        bool, typer.Option("--distrust", help="Of service-account: withdraw the old key.")
    ] = False,
    yes: Yes = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Replace authorities, or the key of service accounts, while everything goes on working.

    In stages: both are accepted; the new one signs, and all is issued anew; the old one is
    accepted no more. A run that was stopped goes on where it was.
    """
    from provision.pki.trust import AUTHORITIES, Part

    parts = tuple(Part(c) for c in ca) if ca else tuple(AUTHORITIES)
    rotate(inventory, "certs rotate-ca", parts, yes=yes, output=output, distrust=distrust)


def rotate(
    inventory: Path,
    command: str,
    parts: tuple[Part, ...],
    *,
    yes: bool,
    output: Output,
    distrust: bool = False,
) -> None:
    """Replace these, from whatever stage they are in."""
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import asks, name_log
    from provision.commands.certs import external_requests, rotation
    from provision.pki.trust import AUTHORITIES

    with open_session(inventory, progress()) as session:
        if set(parts) & set(AUTHORITIES):
            what = "it is replaced there; docs/certificates.md has the three imports"
            external_requests.refuse_external(session.cluster, what)
        name_log(session)
        if asks(session, yes=yes):
            typer.confirm(
                f"Replace {', '.join(parts)} of {session.cluster.name}?", abort=True, err=True
            )
        with hold(session, command, session.observe()):
            trust = rotation.prepare(session, parts, distrust=distrust)
            report = rotation.carry_out(session, trust, parts, distrust=distrust)
    if output is Output.JSON:
        print_json({"replaced": report.parts, "waiting": report.waiting, "seconds": report.seconds})
        return
    seconds = sum(report.seconds.values())
    out.print(f"{', '.join(report.parts)}: replaced, in {seconds:.0f} s.")
    for part in report.waiting:
        out.print(f"The old key of {part} is still accepted, until its tokens have run out.")
        out.print(f"In an hour: clusterctl certs rotate-ca {inventory} --ca {part} --distrust")
