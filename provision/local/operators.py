"""Operators of a cluster: which one runs this command, and which one holds the lock."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from pathlib import Path

from provision.model.commands import clusterctl
from provision.model.errors import RefusedError
from provision.model.holder import BEAT, LIFE, Holder


def this_operator(command: str = "") -> Holder:
    """Describe this run's operator. `command`: as the operator typed it, with the inventory."""
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    return Holder(user, socket.gethostname(), os.getpid(), command, computer=_this_computer())


def gone(holder: Holder) -> bool:
    """Tell whether the holder was a run on this computer that has ended. Its lock does not count.

    A machine that is cut off does not notice the end, and would keep the lock until it expires.
    """
    if not holder.computer or holder.computer != _this_computer():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _this_computer() -> str:
    """Identify this boot and PID namespace: a PID is unique only within them. Linux only."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    return ""


def taken(holder: Holder, inventory: Path) -> RefusedError:
    """Give the error for a lock that another run holds."""
    hint = (
        f"that run is silent: its lock expires in {LIFE - holder.silent} s"
        if BEAT * 2 < holder.silent < LIFE
        else "wait until that run has finished"
    )
    return RefusedError(
        f"another operator works on this cluster: {holder}",
        hint=f"{hint}; if you know that the run has died: {clusterctl('unlock', inventory)}",
    )


def lost(where: str) -> RefusedError:
    """Give the error for a lock that `clusterctl unlock` took from this run."""
    return RefusedError(
        f"an operator removed this run's lock on {where} (`unlock`)",
        hint="this run has stopped; run the same command again when no other operator works "
        "on the cluster",
    )
