"""Put one component's files in place and start its units: one operation, one command."""

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
    """Carry out the change of one component on this machine.

    `provision.plan.machine` has compared it with the machine. Contents of files, including keys,
    are sent on stdin only. The operation needs root: use `_sudo` if the login user is not root.
    """
    if change.empty:
        host.noop(f"{change.component} is as it should be")
        return
    yield StringCommand(COMMAND, _stdin=payload(change), _timeout=change.health_timeout + _MARGIN)
