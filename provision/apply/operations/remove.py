"""Remove what is no longer wanted on a machine: one operation, one command."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host

from provision.apply.teardown import PRUNE, unwanted
from provision.plan.record import Removal


@operation()
def remove(removals: tuple[Removal, ...]) -> Generator[StringCommand, None, None]:
    """Stop, clean up and remove what these lines of the machine's record name.

    `provision.plan.machine` has found these lines. The operation needs root: use `_sudo` if the
    login user is not root.
    """
    if not removals:
        host.noop("nothing is there that is not wanted")
        return
    yield StringCommand(PRUNE, _stdin=unwanted(removals))
