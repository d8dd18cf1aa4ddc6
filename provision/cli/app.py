"""The command `clusterctl`: parse, call, map errors to exit codes.

Modules that connect to machines are imported inside the commands: `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import cast

import typer

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
    secrets_commands,
    trust_commands,
)
from provision.cli.console import err
from provision.cli.failures import show
from provision.model.errors import EXIT_INTERRUPTED, EXIT_USAGE, ClusterctlError

# Typer brings a click of its own along; these are its bases of all errors of usage.
UsageError: type[BaseException] = typer.BadParameter.__bases__[0]
ClickException: type[BaseException] = UsageError.__bases__[0]

app = typer.Typer(
    name="clusterctl",
    help="Turns plain Linux machines into a highly available Kubernetes cluster over SSH, "
    "and keeps it alive.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
cluster_commands.register(app)
access_commands.register(app)
audit_commands.register(app)
lock_commands.register(app)
app.add_typer(machine_commands.app, name="machines")
app.add_typer(certs_commands.app, name="certs")
app.add_typer(secrets_commands.app, name="secrets")
app.add_typer(node_commands.app, name="node")
app.add_typer(ec2_commands.app, name="ec2")
app.add_typer(trust_commands.app, name="trust")
app.add_typer(artifact_commands.app, name="artifacts")
app.add_typer(image_commands.app, name="images")
etcd_commands.register(app)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code; see `provision.model.errors`.
    """
    try:
        result = app(args=arguments, standalone_mode=False)
    except UsageError as error:
        cast("typer.BadParameter", error).show()
        return EXIT_USAGE
    except (typer.Abort, KeyboardInterrupt):
        err.print("\nStopped. Nothing is half written; the same command goes on from here.")
        return EXIT_INTERRUPTED
    except ClickException as error:
        cast("typer.BadParameter", error).show()
        return EXIT_USAGE
    except ClusterctlError as error:
        show(error)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0
