"""`clusterctl audit`: the checks of the CIS benchmark, made on the machines."""

from __future__ import annotations

import typer

from provision.cli.options import Inventory, Output, OutputOption, print_json
from provision.cli.progress import progress
from provision.model.errors import UnhealthyError

app = typer.Typer()


@app.command(epilog="Example: clusterctl audit inventories/ha.py")
def audit(inventory: Inventory, output: OutputOption = Output.TABLE) -> None:
    """Run the checks of the CIS Kubernetes benchmark. Changes nothing.

    The command compares the components' settings and the permissions of their files with the
    benchmark. Exit code 11: a check failed.
    """
    from provision.apply.session import open_session
    from provision.cli.views.audit import audit_as_json, show_audit
    from provision.commands.audit.look import run_checks

    with open_session(inventory, progress()) as session:
        report = run_checks(session)
    if output is Output.JSON:
        print_json(audit_as_json(report))
    else:
        show_audit(report)
    if not report.holds:
        raise typer.Exit(UnhealthyError.exit_code)
