"""Put the files of components in place and start their units: one operation, one command."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host

from provision.apply.change import ComponentChange
from provision.apply.install import COMMAND, payload

_MARGIN = 120  # seconds for everything that is not waiting for health


@operation()
def apply(changes: Sequence[ComponentChange]) -> Generator[StringCommand, None, None]:
    """Carry out changes of components on this machine, in this order.

    `provision.plan.machine` has compared them with the machine. Contents of files, including keys,
    are sent on stdin only. The operation needs root: use `_sudo` if the login user is not root.

    Args:
        changes: of different components; those that are empty are left out.
    """
    wanted = [change for change in changes if not change.empty]
    if not wanted:
        host.noop(f"{', '.join(change.component for change in changes)}: nothing to do")
        return
    timeout = sum(change.health_timeout for change in wanted) + _MARGIN
    yield StringCommand(COMMAND, _stdin=payload(wanted), _timeout=timeout)
