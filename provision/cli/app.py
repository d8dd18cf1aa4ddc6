"""The command `clusterctl`: parse, call, map errors to exit codes.

Modules of commands import the rest of clusterctl inside each command. So `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from provision.cli import (
    access_commands,
    artifact_commands,
    audit_commands,
    certs_commands,
    cluster_commands,
    ec2_commands,
    etcd_commands,
    image_commands,
    lock_commands,
    machine_commands,
    node_commands,
    problems,
    secrets_commands,
    streams,
    trust_commands,
    version_commands,
)
from provision.cli.console import out
from provision.cli.progress import record_events

NAME = "clusterctl"

app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: rich takes half of the time that `--help` may take
    context_settings={"help_option_names": ["-h", "--help"]},
)

# An entry without a name adds its commands to the top level; one with a name is a group.
for commands, name in (
    (cluster_commands.app, None),
    (access_commands.app, None),
    (audit_commands.app, None),
    (lock_commands.app, None),
    (etcd_commands.recovery, None),
    (version_commands.app, None),
    (machine_commands.app, "machines"),
    (node_commands.app, "node"),
    (etcd_commands.app, "etcd"),
    (certs_commands.app, "certs"),
    (secrets_commands.app, "secrets"),
    (trust_commands.app, "trust"),
    (artifact_commands.app, "artifacts"),
    (image_commands.app, "images"),
    (ec2_commands.app, "ec2"),
):
    app.add_typer(commands, name=name)


def _show_version(asked: bool) -> None:
    if asked:
        out.print(f"clusterctl {version_commands.client_version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, and exit."
        ),
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append a JSON line to FILE when a phase begins, and when it ends.",
        ),
    ] = None,
) -> None:
    """Turn Linux machines into a highly available Kubernetes cluster over SSH, and operate it."""
    if events:
        record_events(events.open("a", encoding="utf-8"))


@cache
def _commands() -> Any:  # noqa: ANN401  click's Group, of which typer has its own copy
    """All commands, as typer reads their signatures. Add groups to `app` before the first use."""
    return get_command(app)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code; see `provision.model.errors`.
    """
    given = sys.argv[1:] if arguments is None else arguments
    streams.prepare()
    try:
        code = _run(given)
        streams.flush()
    except BaseException as error:  # noqa: BLE001  every error becomes a message
        return problems.report(error, given)
    return code


def _run(arguments: list[str]) -> int:
    """Run a command. Typer's own `main` would keep Ctrl-C and a closed output to itself."""
    command = _commands()
    if "_CLUSTERCTL_COMPLETE" in os.environ:
        command(args=arguments, prog_name=NAME)  # prints what a shell completes, and exits
    try:
        with command.make_context(NAME, list(arguments)) as context:
            result = command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return result if isinstance(result, int) else 0
