"""`clusterctl etcd`: members, snapshots, restore. And `clusterctl recover`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provision.cli.confirm import confirm
from provision.cli.console import err, out
from provision.cli.options import Inventory, Output, OutputOption, Yes, print_json
from provision.cli.progress import progress
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError, UnhealthyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from provision.apply.session import Session
    from provision.commands.etcd.source import Keys
    from provision.model.look import Look

app = typer.Typer(help="Manage etcd: members, snapshots, restore.", no_args_is_help=True)
recovery = typer.Typer()

AskPassphrase = Annotated[
    bool,
    typer.Option(
        "--passphrase",
        help="Ask for a passphrase, and encrypt the snapshot with it instead of a key.",
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="A file that has the passphrase in its first line.", show_default=False),
]
From = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="SNAPSHOT",
        help="A snapshot: a file, a name that `etcd list` shows, or `newest`.",
    ),
]
IdentityFile = Annotated[
    Path | None,
    typer.Option(
        help="A file with the key that decrypts the snapshot, if this computer does not have it.",
        show_default=False,
    ),
]


@app.command(epilog="Example: clusterctl etcd status inventories/ha.py -o json")
def status(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Show all members of etcd. Exit code 11: etcd is not healthy."""
    from provision.apply.session import open_session
    from provision.cli.views.etcd import show_members
    from provision.commands.etcd import snapshot
    from provision.commands.etcd.status import as_json, judge

    with open_session(inventory, progress()) as session:
        members = snapshot.members(session)
        findings = judge(session.cluster, members)
    if output is Output.JSON:
        print_json({"cluster": session.cluster.name, **as_json(members, findings)})
    else:
        show_members(session.cluster.name, members, findings)
    if any(finding.fatal for finding in findings):
        raise typer.Exit(UnhealthyError.exit_code)


@app.command(epilog="Example: clusterctl etcd snapshot inventories/ha.py -o before.tar.zst.age")
def snapshot(
    inventory: Inventory,
    target: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write. Default: a name made of cluster, time and machine.",
        ),
    ] = None,
    ask: AskPassphrase = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Save an encrypted snapshot to this computer.

    It holds the data of etcd, the cluster's keys, and the inventory.
    """
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
    """List the snapshots that the masters take, newest first.

    The list includes the copies in other places that the inventory names.
    """
    from provision.apply.session import open_session
    from provision.cli.views.etcd import show_copies
    from provision.commands.etcd.copies import listed

    with open_session(inventory, progress()) as session:
        copies, silent = listed(session, session.observe())
    if output is Output.JSON:
        print_json({"snapshots": [asdict(copy) for copy in copies], "silent": silent})
        return
    show_copies(copies, silent)


@app.command(epilog="Example: clusterctl etcd verify inventories/ha.py")
def verify(
    inventory: Inventory,
    source: From = "newest",
    identity: IdentityFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Test whether a snapshot can be restored.

    The command restores it into a temporary etcd on a master, and counts its keys. The cluster's
    own etcd is not changed.
    """
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
        f"{done.revision}, as in the snapshot.",
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
    """Restore the whole cluster from a snapshot.

    The command uses the cluster's own machines, or new machines of the same names.

    The cluster loses everything that was written after the snapshot. If a restore was killed, run
    the same command again: it continues.
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


@recovery.command(epilog="Example: clusterctl recover inventories/ha.py")
def recover(
    inventory: Inventory,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SNAPSHOT",
            help="Restore this snapshot: see `etcd restore`. Default: a member that answers.",
        ),
    ] = "",
    identity: IdentityFile = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
) -> None:
    """Repair a cluster that has lost its etcd quorum permanently.

    The command uses the data of the member that answers and has the newest revision. With --from,
    it uses a snapshot.
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
        lines += [f"{name} has no data, and becomes a member again" for name in remains.empty]
        lines += _left_out(remains.gone)
        lines.append(
            "the newest writes may be lost, also acknowledged writes: these members may not have "
            "received them"
        )
        _agree(session, lines, yes=yes)
        with hold(session, "recover", look), rescued(session, look, remains) as found:
            outlook = assess(session, look, found)
            seconds = carry_out(session, found, outlook)
        _finish(session, seconds, outlook.left_out)


def _left_out(left_out: Mapping[str, str]) -> list[str]:
    lines = [
        f"{name} does not answer and is left out: {why.splitlines()[0]}"
        for name, why in left_out.items()
    ]
    if lines:
        lines.append(
            "do not start these machines again with their old data: they would be a second cluster"
        )
    return lines


def _agree(session: Session, lines: Iterable[str], *, yes: bool) -> None:
    """Show what will be lost, and ask."""
    for line in lines:
        err.print(line, style="yellow", markup=False, soft_wrap=True)
    name = session.cluster.name
    question = "The Kubernetes API does not answer during the restore."
    confirm(f"restore {name}", yes=yes, question=question, name=name)


def _finish(session: Session, seconds: float, left_out: Mapping[str, str]) -> None:
    out.print(f"{session.cluster.name} works again, after {seconds:.1f} s.")
    path = session.cluster.inventory
    for name in left_out:
        out.print(
            f"When {name} can be reached again: {clusterctl('node', 'replace', path, name)}",
            soft_wrap=True,
        )
    out.print(f"Next: {clusterctl('etcd', 'snapshot', path)}", soft_wrap=True)


def _keys(identity: Path | None, passphrase_file: Path | None) -> Keys:
    from provision.commands.etcd.source import Keys

    def passphrase() -> str:
        return _passphrase(passphrase_file, ask=True) or ""

    return Keys(identity, passphrase)


@app.command(epilog="Example: clusterctl etcd defrag inventories/ha.py")
def defrag(inventory: Inventory) -> None:
    """Free unused disk space of etcd, and clear a NOSPACE alarm.

    The command works on one member after the other.
    """
    from provision.apply.lock import hold
    from provision.apply.session import open_session
    from provision.commands.etcd.defrag import defragment

    with open_session(inventory, progress()) as session, hold(session, "etcd defrag"):
        freed = defragment(session)
    for name, (before, after) in freed.sizes.items():
        out.print(f"{name}: {before / 1024**2:.1f} MiB -> {after / 1024**2:.1f} MiB")
    if freed.disarmed:
        out.print("The NOSPACE alarm is cleared: etcd accepts writes again.")


@app.command(epilog="Example: clusterctl etcd key inventories/ha.py")
def key(inventory: Inventory) -> None:
    """Print the key that decrypts the cluster's snapshots.

    Keep a copy outside the cluster.
    """
    from provision.apply.session import open_session
    from provision.commands.etcd.snapshot import trust_of
    from provision.pki import age

    with open_session(inventory, progress()) as session:
        identity = age.identity(trust_of(session, session.observe()))
    err.print(f"to decrypt a snapshot of {session.cluster.name}: age -d -i KEYFILE", style="dim")
    sys.stdout.write(f"{identity}\n")


def _passphrase(file: Path | None, *, ask: bool, confirm: bool = False) -> str | None:
    from provision.local import private_file

    if file is not None:
        text = private_file.read(file).decode(errors="replace").splitlines()
        if not text or not text[0]:
            raise RefusedError(f"{file} has no passphrase in its first line")
        return text[0]
    if not ask:
        return None
    if not sys.stdin.isatty():
        message = "cannot ask for the passphrase: standard input is not a terminal"
        raise RefusedError(message, hint="--passphrase-file FILE")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
