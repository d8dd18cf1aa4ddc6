"""The limit of inotify instances, the only kernel setting that a lab must raise.

All machines of all labs share root's inotify instances, 128 on most distributions. If none is
free, systemd exits in a machine without a message. The limit is raised before machines start, and
restored when the last lab is removed.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from provision.local.progress import Progress

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
# Counted in /proc/*/fd: systemd has 5, D-Bus 1; the rest is for kubelet, containerd and pods.
PER_MACHINE = 16
OPERATOR = 128


def instances(setting: Path = INSTANCES) -> int:
    return int(setting.read_text())


def make_room(machines: int, progress: Progress, setting: Path = INSTANCES) -> None:
    """Raise the limit for this number of machines. Tell the operator, also if it fails."""
    found, wanted = instances(setting), OPERATOR + PER_MACHINE * machines
    if found >= wanted:
        return
    name = "fs.inotify.max_user_instances"
    try:
        setting.write_text(f"{wanted}\n")
    except PermissionError:
        progress.note(
            f"{name} is {found}, and {machines} machines may need {wanted}; if one does not come "
            f"up: sudo sysctl {name}={wanted}"
        )
    else:
        progress.note(f"{name}: {found} -> {wanted}, until the last lab is removed")


def set_back(before: int, setting: Path = INSTANCES) -> None:
    """Restore the limit to its value before the first lab, if clusterctl has raised it."""
    if instances(setting) > before:
        with suppress(PermissionError):
            setting.write_text(f"{before}\n")
