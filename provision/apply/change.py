"""What is to be done on a machine, as values. `provision.apply.install` turns them into bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from provision.desired.model import Directory, HostFile
from provision.pki.leaf import Issued

_HOW = frozenset({"component", "health", "health_timeout"})


@dataclass(frozen=True)
class ComponentChange:
    """All that is to be done for one component on one machine, in one go.

    Everything that it does not name stays as it is. Its repr has no content of files, since pyinfra
    prints the arguments of operations.

    Attributes:
        component: its name, and that of its record.
        users: system users that must exist, each with a group of its name.
        directories: to be made, or given mode and owner.
        files: to be put in place, whole.
        issued: certificates and their keys to be put in place.
        remove: paths of files to be removed.
        sysctls: (key, value) to be set now; files of the component keep them.
        modules: kernel modules to be loaded now, if the kernel has them.
        enable: units to be enabled, but neither started nor stopped.
        start: units to be enabled and running.
        restart, reload: units to be restarted or reloaded.
        health: shell program that exits 0 when the component is healthy; empty: the component is
            healthy when its units run.
        health_timeout: seconds until a component that is not healthy is a failure.
        record: its record, whole, written when all is done; empty: the record stays.
        record_before: the record written before anything is touched: `record`, with the units'
            digests as they were, so that a run that is killed restarts them next time.
    """

    component: str
    users: tuple[str, ...] = ()
    directories: tuple[Directory, ...] = ()
    files: tuple[HostFile, ...] = field(default=(), repr=False)
    issued: tuple[Issued, ...] = field(default=(), repr=False)
    remove: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    modules: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    health: str = field(default="", repr=False)
    health_timeout: int = 120
    record: str = field(default="", repr=False)
    record_before: str = field(default="", repr=False)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not any(getattr(self, f.name) for f in fields(self) if f.name not in _HOW)
