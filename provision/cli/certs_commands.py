"""`clusterctl certs`: list and renew certificates, replace authorities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provision.cli.confirm import confirm
from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, OutputOption, Yes, print_json
from provision.cli.progress import progress
from provision.model.commands import clusterctl
from provision.model.errors import EXIT_DUE, UnreachableError

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


app = typer.Typer(help="List and renew certificates; replace authorities.", no_args_is_help=True)


@app.command("list", epilog="Example: clusterctl certs list inventories/ha.py --warn-days 60")
def list_(
    inventory: Inventory,
    output: OutputOption = Output.TABLE,
    warn_days: Annotated[
        float, typer.Option(help="Exit with code 2 if a certificate expires in fewer days.", min=0)
    ] = 30,
) -> None:
    """Show every certificate on every machine.

    The list includes authorities, and certificates in kubeconfigs. The command reads the files on the machines, so it works without the Kubernetes API.
    """
    from provision.apply.session import open_session
    from provision.cli.views.certificates import certificates_as_json, show_certificates
    from provision.commands.certs import listing

    with open_session(inventory, progress()) as session:
        machines = session.cluster.machines
        answers = session.engine.fetch(lambda _: listing.program(), machines)
    now, warn = datetime.now(UTC), timedelta(days=warn_days)
    certificates = [c for name, a in answers.items() for c in listing.parse(name, a.output)]
    if output is Output.JSON:
        print_json(certificates_as_json(certificates, now))
    else:
        show_certificates(certificates, now, warn)
    if silent := {name: answer for name, answer in answers.items() if answer.error}:
        reasons = "; ".join(f"{name}: {answer.error}" for name, answer in silent.items())
        message = f"the certificates of some machines could not be read: {reasons}"
        raise UnreachableError(message, hint=next(iter(silent.values())).hint)
    if any(c.left(now) < warn for c in certificates):
        raise typer.Exit(EXIT_DUE)


@app.command(epilog="Example: clusterctl certs renew inventories/ha.py --all")
def renew(
    inventory: Inventory,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Certificates: kube-apiserver, kubelet-client, ..."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All certificates.")] = False,
    yes: Yes = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Renew certificates, with new keys.

    Authorities are not replaced. The command renews the certificates of one machine after the other, and waits until each is healthy. If a run was
    stopped, run the same command again within a day: it continues. Later, it starts again.
    """
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import name_log
    from provision.commands.certs import external_requests, renewal

    if everything == bool(names):
        message = "name the certificates, or use --all"
        raise typer.BadParameter(message)
    wanted = frozenset(names or ())
    with open_session(inventory, progress()) as session:
        external_requests.refuse_external(session.cluster, "clusterctl cannot renew certificates")
        name_log(session)
        prepare = partial(renewal.prepare, session, wanted)
        with _agreed(session, "certs renew", prepare, yes=yes) as run:
            report = renewal.renew(run, wanted)
    _issued(report, "renewed", output)


@app.command(epilog="Example: clusterctl certs recover inventories/ha.py")
def recover(inventory: Inventory, yes: Yes = False, output: OutputOption = Output.TABLE) -> None:
    """Repair a cluster whose certificates have expired. Needs only SSH to the machines."""
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import name_log
    from provision.commands.certs import external_requests, renewal

    with open_session(inventory, progress()) as session:
        what = "the external authority must sign the expired certificates"
        external_requests.refuse_external(session.cluster, what)
        name_log(session)
        prepare = partial(renewal.prepare_recovery, session)
        with _agreed(session, "certs recover", prepare, yes=yes) as run:
            if run.plan.empty:
                out.print(f"{session.cluster.name}: no certificate has expired.")
                return
            report = renewal.recover(run)
    _issued(report, "issued", output)


@contextmanager
def _agreed(
    session: Session, command: str, prepare: Callable[[], Run], *, yes: bool
) -> Iterator[Run]:
    """Plan, ask and lock; then plan again, because another operator may have changed the machines.

    The question comes before the lock: while it waits for an answer, the lock's heartbeat would
    stop.
    """
    from provision.apply.lock import hold
    from provision.cli.cluster_commands import agree, asks, refuse_changed

    agreed = None
    if asks(session, yes=yes):
        planned = prepare()
        look, agreed = planned.look, planned.plan
        if not agreed.empty:
            agree(session, agreed)
    else:
        look = session.observe()
    with hold(session, command, look):
        run = prepare()
        if agreed not in (None, run.plan):
            refuse_changed(f"clusterctl {command} {session.cluster.inventory}")
        yield run


def _issued(report: Report, done: str, output: Output) -> None:
    if output is Output.JSON:
        print_json({"issued": report.issued, "seconds": report.seconds, "took": report.took})
        return
    count = sum(len(names) for names in report.issued.values())
    machines = f"{len(report.issued)} machines"
    out.print(f"{count} certificates {done} on {machines}, in {report.took:.0f} s.")


@app.command(epilog="Example: clusterctl certs csr inventories/external.py -o requests")
def csr(
    inventory: Inventory,
    directory: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR", help="The directory for the requests.", file_okay=False
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Only these certificates. Default: all that the cluster lacks.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All certificates.")] = False,
) -> None:
    """Write certificate requests for an external authority.

    The command writes a file for each request, and an index. The machines make the keys. The keys never leave the machines.
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
        out.print(f"{session.cluster.name} needs no certificate. Use --all to renew all of them.")
        return
    for name, content in requests.outgoing(made).items():
        private_file.write(directory / name, content)
    count = sum(len(asked) for asked in made.values())
    out.print(f"{count} requests are in {directory}. INDEX.txt there lists them.", soft_wrap=True)
    out.print(
        "Let the authority sign each request. Put each certificate beside its request, with the"
    )
    out.print("extension .crt. Put the authorities' certificates there too: kubernetes-ca.crt,")
    out.print("etcd-ca.crt, front-proxy-ca.crt. Then:")
    out.print(clusterctl("certs", "import", inventory, directory), soft_wrap=True)


@app.command("import", epilog="Example: clusterctl certs import inventories/external.py signed")
def import_(
    inventory: Inventory,
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="The directory that `certs csr` wrote.",
            exists=True,
            file_okay=False,
        ),
    ],
    yes: Yes = False,
) -> None:
    """Import certificates that an external authority has signed.

    If one certificate is wrong, the command imports none. A running cluster uses the certificates
    at once: the command changes one machine after the other, and waits until each is healthy.
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
            confirm(f"import certificates of {session.cluster.name}", yes=yes, question=question)
        with hold(session, "certs import", session.observe()):
            done = external_import.import_signed(session, directory)
    count = sum(len(names) for names in (done.issued or done.waiting).values())
    if done.issued or not (done.waiting or done.others):
        out.print(f"{count} certificates are in use, after {done.took:.0f} s.")
    else:
        out.print(f"{count} certificates are on their machines, and not in use yet. Next:")
        if done.others:
            where = ", ".join(done.others)
            err.print(
                f"`up` also makes other changes, and shows them first: {where}",
                soft_wrap=True,
            )
        out.print(clusterctl("up", inventory), soft_wrap=True)


@app.command("rotate-ca", epilog="Example: clusterctl certs rotate-ca inventories/ha.py")
def rotate_ca(
    inventory: Inventory,
    ca: Annotated[
        list[Replaceable] | None,
        typer.Option(
            "--ca", help="What to replace. May be repeated. Default: the three authorities."
        ),
    ] = None,
    distrust: Annotated[
        bool,
        typer.Option("--distrust", help="With --ca service-account: stop accepting the old key."),
    ] = False,
    yes: Yes = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Replace authorities, or the key of service accounts.

    The cluster keeps running. The stages: all components accept the old and the new authority; the new authority signs all
    certificates again; no component accepts the old authority. If a run was stopped, run the same
    command again: it continues.
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
    """Replace these parts. Each continues from the stage that it is in."""
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.cli.cluster_commands import asks, name_log
    from provision.commands.certs import external_requests, rotation
    from provision.pki.trust import AUTHORITIES

    with open_session(inventory, progress()) as session:
        if set(parts) & set(AUTHORITIES):
            what = "to replace it, import certificates three times: see docs/certificates.md"
            external_requests.refuse_external(session.cluster, what)
        name_log(session)
        if asks(session, yes=yes):
            change = f"{', '.join(parts)} of {session.cluster.name}"
            confirm(f"replace {change}", yes=yes, question=f"Replace {change}?")
        with hold(session, command, session.observe()):
            trust = rotation.prepare(session, parts, distrust=distrust)
            report = rotation.carry_out(session, trust, parts, distrust=distrust)
    if output is Output.JSON:
        print_json(
            {
                "replaced": report.parts,
                "waiting": report.waiting,
                "seconds": report.seconds,
                "took": report.took,
            }
        )
        return
    out.print(f"{', '.join(report.parts)}: replaced, in {report.took:.0f} s.")
    for part in report.waiting:
        out.print(f"The old key of {part} is still accepted, because its tokens are still valid.")
        out.print(
            f"In an hour, run: {clusterctl('certs', 'rotate-ca', inventory, '--ca', part, '--distrust')}",
            soft_wrap=True,
        )
