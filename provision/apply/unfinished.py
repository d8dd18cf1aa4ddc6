"""A mark on the masters while a command changes the cluster: `with marked(run):`.

A command that fails or is killed leaves the mark. The next `up` then verifies the cluster, even if
it finds nothing to change: a machine that has all its files does not show that pods and names work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from shlex import quote

from provision.apply.fanout import fan_out
from provision.apply.phases import Run
from provision.local.operators import this_operator
from provision.model import paths


@contextmanager
def marked(run: Run) -> Iterator[None]:
    """Mark the masters that the run has looked at, and remove the mark if the block succeeds.

    A run whose plan leaves out a master verifies only a part of the cluster: an older mark on that
    master stays.

    Raises:
        PhaseError: a master cannot be marked. Nothing was changed.
        UnreachableError: the connection to a master broke.
    """
    me = this_operator()
    line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC by {me.user}@{me.host}"
    mark = quote(paths.UNFINISHED)
    _on_masters(run, f"mkdir -p {paths.STATE} && echo {quote(line)} >{mark} && sync {mark}")
    yield
    _on_masters(run, f"rm -f {mark}")


def _on_masters(run: Run, program: str) -> None:
    masters = [
        machine
        for machine in run.look.answering(run.session.cluster.masters)
        if machine.name in run.plan.machines or not run.look[machine.name].unfinished
    ]
    hint = "run the same command again"
    engine = run.session.engine
    fan_out("mark the run", masters, lambda machine: engine.shell(machine, program), hint=hint)
