"""`clusterctl etcd`: the members, and snapshots of what they hold."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, OutputOption, Yes, print_json
from provision.cli.progress import progress
from provision.local import private_file
from provision.model.errors import RefusedError, UnhealthyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from provision.apply.session import Session
    from provision.commands.etcd.source import Keys
    from provision.commands.etcd.status import Member
    from provision.model.errors import Finding
    from provision.model.look import Look

app = typer.Typer(help="Look after etcd: its members, snapshots, ways back.", no_args_is_help=True)

AskPassphrase = Annotated[
    bool, typer.Option("--passphrase", help="A passphrase opens it, not a key; it is asked for.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the passphrase.", show_default=False),
]
From = Annotated[
    str,
    typer.Option(
        "--from", help="A file; a name that `etcd list` shows; `newest` of those that it shows."
    ),
]
IdentityFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the key that opens it, if it is not known here.", show_default=False
    ),
]


def register(application: typer.Typer) -> None:
    """Add the group, and `recover`, which is typed in a hurry."""
    application.add_typer(app, name="etcd")
    application.command(epilog="Example: clusterctl recover inventories/ha.py")(recover)


@app.command(epilog="Example: clusterctl etcd status inventories/ha.py -o json")
def status(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Show every member: leader, sizes, revision, alarms. Exit code 11: not healthy."""
    from provision.apply.session import open_session
    from provision.commands.etcd import snapshot
    from provision.commands.etcd.status import as_json, judge

    with open_session(inventory, progress()) as session:
        members = snapshot.members(session)
        findings = judge(session.cluster, members)
    if output is Output.JSON:
        print_json({"cluster": session.cluster.name, **as_json(members, findings)})
    else:
        _show(session.cluster.name, members, findings)
    if any(finding.fatal for finding in findings):
        raise typer.Exit(UnhealthyError.exit_code)


def _show(cluster: str, members: Iterable[Member], findings: Iterable[Finding]) -> None:
    bad = any(finding.fatal for finding in findings)
    word = Text("not healthy", "bold red") if bad else Text("healthy", "bold green")
    out.print(Text.assemble(("etcd of ", ""), (cluster, "bold"), "  ", word))
    table = Table(box=None, pad_edge=False)
    for heading in ("MEMBER", "ID", "ROLE", "VERSION", "SIZE", "IN USE", "REVISION", "ALARMS"):
        table.add_column(heading, overflow="fold")
    for m in members:
        if not m.answers:
            table.add_row(m.machine, Text("does not answer", "red"))
            continue
        table.add_row(
            m.machine,
            m.id,
            "leader" if m.leader else "",
            m.version,
            f"{m.size / 1024**2:.1f} MiB",
            f"{m.in_use / 1024**2:.1f} MiB",
            str(m.revision),
            Text(" ".join(m.alarms), "red"),
        )
    out.print(table)
    for finding in findings:
        mark = Text("✗ ", "red") if finding.fatal else Text("! ", "yellow")
        out.print(Text.assemble(mark, f"{finding.where}: {finding.what}"), soft_wrap=True)
        if finding.hint:
            out.print(Text(f"  {finding.hint}", "yellow"), soft_wrap=True)


@app.command(
    epilog="Example: clusterctl etcd snapshot inventories/ha.py -o before-upgrade.tar.zst.age"
)
def snapshot(
    inventory: Inventory,
    target: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file; else named by cluster, time and machine."),
    ] = None,
    ask: AskPassphrase = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Take a snapshot to this computer: etcd, the cluster's keys, the inventory; encrypted."""
    from provision.apply.session import open_session
    from provision.commands.etcd.snapshot import take

    passphrase = _passphrase(passphrase_file, ask=ask, confirm=True)
    with open_session(inventory, progress()) as session:
        taken = take(session, target, passphrase)
    manifest = taken.manifest
    out.print(
        f"{taken.path}: {taken.size / 1024**2:.1f} MiB, {manifest.keys} keys at revision "
        f"{manifest.revision}, from {taken.machine}, in {taken.seconds:.1f} s.",
        soft_wrap=True,
    )


@app.command("list", epilog="Example: clusterctl etcd list inventories/ha.py")
def list_(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """List the snapshots that masters took by themselves, and their copies; newest first."""
    from provision.apply.session import open_session
    from provision.commands.etcd.copies import listed

    with open_session(inventory, progress()) as session:
        copies, silent = listed(session, session.observe())
    if output is Output.JSON:
        print_json({"snapshots": [asdict(copy) for copy in copies], "silent": silent})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("SNAPSHOT", "WHERE", "SIZE"):
        table.add_column(heading, overflow="fold")
    for copy in copies:
        table.add_row(copy.name, copy.where, f"{copy.size / 1024**2:.1f} MiB")
    out.print(table)
    for where, why in silent.items():
        err.print(Text(f"{where} could not be asked: {why}", "yellow"), soft_wrap=True)


@app.command(epilog="Example: clusterctl etcd verify inventories/ha.py")
def verify(
    inventory: Inventory,
    source: From = "newest",
    identity: IdentityFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Restore a snapshot into a throw-away etcd beside the cluster, and count what came back."""
    from provision.apply.session import open_session
    from provision.commands.etcd.source import describe, fit, opened
    from provision.commands.etcd.verify import try_restore

    keys = _keys(identity, passphrase_file)
    with open_session(inventory, progress()) as session:
        look = session.observe()
        with opened(session, look, source, keys) as found:
            fit(session.cluster, look.fingerprint() or None, found)
            out.print(describe(found), soft_wrap=True)
            done = try_restore(session, look, found)
    out.print(
        f"Restored on {done.machine} in {done.seconds:.1f} s: {done.keys} keys at revision "
        f"{done.revision}, as they were saved.",
        soft_wrap=True,
    )


@app.command(epilog="Example: clusterctl etcd restore inventories/ha.py --from FILE")
def restore(
    inventory: Inventory,
    source: From = "newest",
    identity: IdentityFile = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
) -> None:
    """Bring the whole cluster back to a snapshot: on its own machines, or on new ones.

    Everything written since is lost. A restore that was killed goes on with the same command.
    """
    from provision.apply.session import open_session

    with open_session(inventory, progress(), create=True) as session:
        _restore(session, session.observe(), source, _keys(identity, passphrase_file), yes=yes)


def _restore(
    session: Session,
    look: Look,
    source: str,
    keys: Keys,
    *,
    command: str = "etcd restore",
    yes: bool,
) -> None:
    from provision.apply.lock import hold
    from provision.commands.etcd.restore import assess, carry_out
    from provision.commands.etcd.source import describe, fit, opened

    with opened(session, look, source, keys) as found:
        fit(session.cluster, look.fingerprint() or None, found)
        outlook = assess(session, look, found)
        err.print(describe(found), soft_wrap=True)
        _agree(session, [outlook.lost(found), *_left_out(outlook.left_out)], yes=yes)
        with hold(session, command, look):
            seconds = carry_out(session, found, outlook)
        _finish(session, seconds, outlook.left_out)


def recover(
    inventory: Inventory,
    source: Annotated[
        str,
        typer.Option(
            "--from", help="From a snapshot, as `etcd restore` names it; else from a survivor."
        ),
    ] = "",
    identity: IdentityFile = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
) -> None:
    """Quorum is lost for good: make the cluster work again, from what is left of it.

    Takes the member that answers and goes furthest; with --from, a snapshot.
    """
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.commands.etcd.recover import rescued, what_remains
    from provision.commands.etcd.restore import assess, carry_out

    with open_session(inventory, progress()) as session:
        look = session.observe()
        if source:
            keys = _keys(identity, passphrase_file)
            _restore(session, look, source, keys, command="recover", yes=yes)
            return
        remains = what_remains(session, look)
        lines = [f"{name} has data: {far}" for name, far in remains.survivors.items()]
        lines += [f"{name} is empty, and becomes a member again" for name in remains.empty]
        lines += _left_out(remains.gone)
        lines.append(
            "what was written last may be lost: writes that the cluster had acknowledged and that "
            "none of these had been told of"
        )
        _agree(session, lines, yes=yes)
        with hold(session, "recover", look), rescued(session, look, remains) as found:
            outlook = assess(session, look, found)
            seconds = carry_out(session, found, outlook)
        _finish(session, seconds, outlook.left_out)


def _left_out(left_out: Mapping[str, str]) -> list[str]:
    lines = [
        f"{name} does not answer and takes no part: {why.splitlines()[0]}"
        for name, why in left_out.items()
    ]
    if lines:
        lines.append(
            "none of these may come back with the data that it had: it would be a second cluster"
        )
    return lines


def _agree(session: Session, lines: Iterable[str], *, yes: bool) -> None:
    """Say what will be lost, before anything is."""
    for line in lines:
        err.print(Text(line, "yellow"), soft_wrap=True)
    name = session.cluster.name
    if yes:
        return
    if not sys.stdin.isatty():
        message = f"{name} would lose what is said above, and there is nobody to ask"
        raise RefusedError(message, hint="say --yes")
    answer = typer.prompt(
        f"The API stands still meanwhile. Type the cluster's name, {name}", err=True
    )
    if answer != name:
        message = "that is not its name: nothing was touched"
        raise RefusedError(message)


def _finish(session: Session, seconds: float, left_out: Mapping[str, str]) -> None:
    out.print(f"{session.cluster.name} is back after {seconds:.1f} s.")
    path = session.cluster.inventory
    for name in left_out:
        out.print(f"When {name} is there again: clusterctl node replace {path} {name}")
    out.print(f"Next: clusterctl etcd snapshot {path}", soft_wrap=True)


def _keys(identity: Path | None, passphrase_file: Path | None) -> Keys:
    from provision.commands.etcd.source import Keys

    def passphrase() -> str:
        return _passphrase(passphrase_file, ask=True) or ""

    return Keys(identity, passphrase)


@app.command(epilog="Example: clusterctl etcd defrag inventories/ha.py")
def defrag(inventory: Inventory) -> None:
    """Give back what etcd does not use, one member at a time; ends a NOSPACE alarm."""
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.commands.etcd.defrag import defragment

    with open_session(inventory, progress()) as session, hold(session, "etcd defrag"):
        freed = defragment(session)
    for name, (before, after) in freed.sizes.items():
        out.print(f"{name}: {before / 1024**2:.1f} MiB -> {after / 1024**2:.1f} MiB")
    if freed.disarmed:
        out.print("NOSPACE is ended: etcd takes writes again.")


@app.command(epilog="Example: clusterctl etcd key inventories/ha.py")
def key(inventory: Inventory) -> None:
    """Print the key that opens the cluster's snapshots: keep it where the cluster is not."""
    from provision.apply.session import open_session
    from provision.commands.etcd.snapshot import trust_of
    from provision.pki import age

    with open_session(inventory, progress()) as session:
        identity = age.identity(trust_of(session, session.observe()))
    err.print(f"opens every snapshot of {session.cluster.name}: age -d -i FILE", style="dim")
    sys.stdout.write(f"{identity}\n")


def _passphrase(file: Path | None, *, ask: bool, confirm: bool = False) -> str | None:
    if file is not None:
        text = private_file.read(file).decode(errors="replace").splitlines()
        if not text or not text[0]:
            raise RefusedError(f"{file} has no passphrase in its first line")
        return text[0]
    if not ask:
        return None
    if not sys.stdin.isatty():
        raise RefusedError("there is nobody to ask for a passphrase", hint="--passphrase-file FILE")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
