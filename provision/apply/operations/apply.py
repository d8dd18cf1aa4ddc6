"""Bring one component's files in place and its units to run: one operation, one command."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host

from provision.apply.change import ComponentChange
from provision.apply.install import COMMAND, payload

_MARGIN = 120  # seconds for everything that is not waiting for health


@operation()
def apply(change: ComponentChange) -> Generator[StringCommand, None, None]:
    """Do what is to be done for one component on this machine.

    The comparison with what is there was made by `provision.plan.machine`; contents, keys among them,
    travel on stdin only. Needs root: `_sudo` where the login user is not.
    """
    if change.empty:
        host.noop(f"{change.component} is as it should be")
        return
    yield StringCommand(COMMAND, _stdin=payload(change), _timeout=change.health_timeout + _MARGIN)
