"""Stop an apiserver while the etcd member on its machine restarts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import gevent

from provision.apply.checked import checked
from provision.apply.phases.run import Work
from provision.model.cluster import Machine
from provision.model.errors import UnreachableError

_LAST_WORD = 3  # seconds for a machine's last command when the run ends
_START = "systemctl --no-block start kube-apiserver.service"


@contextmanager
def without_apiserver(work: Work, batch: Sequence[Machine]) -> Iterator[None]:
    """Stop apiservers before the block restarts their etcd members; start them again afterwards.

    Raises:
        PhaseError: an apiserver did not stop or start.
    """

    def restarts(machine: Machine) -> bool:
        plan = work.plan.machines[machine.name].components.get("etcd")
        return plan is not None and plan.restarts

    def systemctl(verb: str) -> None:
        for machine in mine:
            work.progress.update(machine.name, f"{verb} kube-apiserver")
            command = f"systemctl {verb} kube-apiserver.service"
            checked(work.session.engine.shell(machine, command), machine, "etcd", command)

    mine = [m for m in batch if work.plan.running and m.is_master and m.has_etcd and restarts(m)]
    try:
        systemctl("stop")
        yield
    except BaseException:
        # Also at Ctrl-C: otherwise the machine would have no apiserver until the next `up`.
        for machine in mine:
            with gevent.Timeout(_LAST_WORD, False), suppress(UnreachableError):
                work.session.engine.shell(machine, _START)
        raise
    systemctl("start")
