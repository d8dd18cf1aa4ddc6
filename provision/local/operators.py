"""Who the operators of a cluster are, to each other."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from pathlib import Path

from provision.model.errors import RefusedError
from provision.model.holder import BEAT, LIFE, Holder


def this_operator(command: str = "") -> Holder:
    """Whoever runs clusterctl here. `command`: of it, with the inventory."""
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    return Holder(user, socket.gethostname(), os.getpid(), command, computer=_this_computer())


def gone(holder: Holder) -> bool:
    """Whether it was a run on this computer, and has ended: its lock keeps nobody out.

    A machine that is cut off does not hear of that end, and would keep the lock for its time.
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
    """Whose processes can be told by their numbers: this boot, this namespace; Linux only."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    return ""


def taken(holder: Holder, inventory: Path) -> RefusedError:
    """Somebody else has the lock."""
    hint = (
        f"it is silent: in {LIFE - holder.silent} s the lock falls by itself"
        if BEAT * 2 < holder.silent < LIFE
        else "wait until it has finished"
    )
    return RefusedError(
        f"somebody else works on this cluster: {holder}",
        hint=f"{hint}; if you know that it is dead: clusterctl unlock {inventory}",
    )


def lost(where: str) -> RefusedError:
    """Somebody has taken the lock from us."""
    return RefusedError(
        f"the lock on {where} was taken away by hand (clusterctl unlock)",
        hint="this run has stopped; the same command goes on from here, once nobody works "
        "on the cluster",
    )
