"""Interrupt clusterctl: kill it in every phase, press Ctrl-C. The next run finishes the work."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Collection
from pathlib import Path

from provision.apply.phases import CONTROL_PLANE, Phase
from provision.drill.harm import Action, connect, power_on
from provision.drill.runs import Ended, Run, run_clusterctl
from provision.drill.site import Site, await_
from provision.model import paths
from provision.model.errors import EXIT_INTERRUPTED, RefusedError, UnhealthyError

LONGEST = 4.0  # seconds from the beginning of a phase to the kill, at most
HEALTHY = 120.0  # seconds until the cluster must be healthy after the last run
FALLEN = 240.0  # seconds until another run has taken over from a frozen run, and finished
STOPPED = 5.0  # seconds from Ctrl-C to the end of the run
CHANGED = f"{paths.KUBERNETES}/audit-policy.yaml"  # a change of it restarts the apiserver
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"


def kill_in_every_phase(
    command: str,
    inventory: Path,
    seed: int,
    *arguments: str,
    but: Collection[str] = (),
    only: Collection[str] | None = None,
) -> tuple[list[str], Ended]:
    """Kill a command in its first phase, run it again, kill it in the second, and so on.

    The seed decides the moment within the phase. The last run is not killed.

    Args:
        but: phases in which the command is not killed.
        only: phases in which the command is killed; None: all.

    Returns:
        The phases in which the command was killed, and how the last run ended.
    """
    moments = random.Random(seed)  # noqa: S311
    killed: list[str] = []
    while True:
        run = Run(command, inventory, *arguments)
        names = (name for name in run.phases() if only is None or name in only)
        phase = next((name for name in names if name not in (*killed, *but)), "")
        if not phase:
            return killed, run.wait()
        run.within_phase(phase, moments.uniform(0, LONGEST))
        run.send(signal.SIGKILL)
        run.wait()
        killed.append(phase)


def finished(inventory: Path) -> None:
    """Check that `plan` finds no change, and that the cluster is healthy within `HEALTHY` seconds.

    Raises:
        UnhealthyError: `plan` finds a change, or the cluster is not healthy in time.
    """
    if (plan := run_clusterctl("plan", inventory)).code != 0:
        message = f"there is something left to do: {plan.out}{plan.err}"
        raise UnhealthyError(message)
    await_(
        "clusterctl status: healthy", lambda: run_clusterctl("status", inventory).code == 0, HEALTHY
    )


def press_ctrl_c(site: Site, victim: str) -> str:
    """Press Ctrl-C while `up` restarts one apiserver after the other.

    Raises:
        UnhealthyError: clusterctl took longer than 5 s to stop, or ended with another exit code.
    """
    run = _up_in_rolling_phase(site)
    pressed = time.monotonic()
    run.send(signal.SIGINT)
    ended = run.wait(60)
    seconds = time.monotonic() - pressed
    if ended.code != EXIT_INTERRUPTED or seconds > STOPPED:
        message = f"Ctrl-C: exit {ended.code} after {seconds:.1f} s\n{ended.err[-1000:]}"
        raise UnhealthyError(message)
    return f"clusterctl ended after {seconds:.1f} s"


def meet(site: Site, victim: str) -> str:
    """Run a second `up` while the first restarts one apiserver after the other.

    Raises:
        UnhealthyError: the second `up` was not refused, or the first did not finish.
    """
    run = _up_in_rolling_phase(site)
    _second_is_refused(site)
    run.wait().succeeded()
    return "the second was refused"


def freeze(site: Site, victim: str) -> str:
    """Freeze an `up`, as if its computer were cut off. Another `up` takes over later.

    Raises:
        UnhealthyError: another `up` is not refused at first, or does not take over in time.
    """
    run = _up_in_rolling_phase(site)
    run.send(signal.SIGSTOP)
    try:
        _second_is_refused(site)
        seconds = await_(
            "the lock falls by itself", lambda: site.clusterctl("up", "--yes").code == 0, FALLEN
        )
    finally:
        run.send(signal.SIGKILL)
        run.wait()
    return f"another up was refused, and had taken over and finished after {seconds:.0f} s"


def _second_is_refused(site: Site) -> None:
    second = site.clusterctl("up", "--yes")
    if second.code != RefusedError.exit_code or "another operator works" not in second.said:
        message = f"a second up ended with {second.code}: {second.err[-1000:]}"
        raise UnhealthyError(message)


def lose(loss: Action) -> Action:
    """Make an action that loses a machine while `up` restarts one apiserver after the other.

    The action raises UnhealthyError if `up` succeeds, or does not name the machine that it lost.
    """

    def act(site: Site, victim: str) -> str:
        run = _up_in_rolling_phase(site)
        return _lose(site, victim, loss, run, "up")

    return act


def lose_in(
    phase: Phase, loss: Action, site: Site, victim: str, command: str, *arguments: str
) -> str:
    """Lose a machine while a command is in this phase.

    Raises:
        UnhealthyError: the command has no such phase, succeeds, or does not name the machine that
            it lost.
    """
    return _lose(site, victim, loss, _in_phase(site, phase, command, *arguments), command)


def _lose(site: Site, victim: str, loss: Action, run: Run, command: str) -> str:
    loss(site, victim)
    ended = run.wait()
    if ended.code == 0 or victim not in ended.said:
        message = f"{command} lost {victim} and ended with {ended.code}: {ended.err[-1000:]}"
        raise UnhealthyError(message)
    return f"{command} ended with {ended.code} and named {victim}"


def finish(site: Site, victim: str) -> None:
    """Run `up` again, and check that no half-written file is left.

    Raises:
        UnhealthyError: `up` failed, a change is left to do, or a half-written file is left.
    """
    site.clusterctl("up", "--yes").succeeded()
    finished(site.inventory)
    for machine in site.cluster.machines:
        left = site.run(machine.name, f"find / -xdev -name '*{paths.NEW}' 2>/dev/null; true")
        if left:
            message = f"half written on {machine.name}: {left.strip()}"
            raise UnhealthyError(message)


def start_and_finish(site: Site, victim: str) -> None:
    power_on(site, victim)
    site.clusterctl("machines up").succeeded()
    finish(site, victim)


def connect_and_finish(site: Site, victim: str) -> None:
    connect(site, victim)
    site.locate()  # a replacement of the same name may have another address
    finish(site, victim)


def change_host_key(site: Site, victim: str) -> str:
    """Give a machine a new host key, and check that clusterctl refuses to connect to it.

    Raises:
        UnhealthyError: `up` succeeds, or does not name the host key.
    """
    site.run(
        victim,
        f"mv {HOST_KEY} {HOST_KEY}.was && mv {HOST_KEY}.pub {HOST_KEY}.pub.was && "
        f"ssh-keygen -q -t ed25519 -N '' -f {HOST_KEY} && systemctl reload ssh",
    )
    site.run(victim, "echo '# by the drill' >> " + CHANGED)
    ended = site.clusterctl("up", "--yes")
    site.run(victim, f"tail -n 1 {CHANGED} | grep -q drill")
    if ended.code == 0 or "host key" not in ended.said:
        message = f"another host key, and up ended with {ended.code}: {ended.err[-1000:]}"
        raise UnhealthyError(message)
    return f"up ended with {ended.code} and did nothing there"


def restore_host_key(site: Site, victim: str) -> None:
    site.run(
        victim,
        f"mv {HOST_KEY}.was {HOST_KEY} && mv {HOST_KEY}.pub.was {HOST_KEY}.pub && "
        "systemctl reload ssh",
    )
    finish(site, victim)


def _up_in_rolling_phase(site: Site) -> Run:
    """Start an `up` that has to restart every apiserver. Return when it begins to do so."""
    for master in site.cluster.masters:
        site.run(master.name, f"echo '# by the drill' >> {CHANGED}")
    return _in_phase(site, CONTROL_PLANE, "up", "--yes")


def _in_phase(site: Site, phase: Phase, command: str, *arguments: str) -> Run:
    """Start a command. Return when it is in this phase."""
    run = Run(command, site.inventory, *arguments)
    if phase.name not in run.phases():
        message = f"{command} ended without the phase {phase.name!r}: {run.wait().err[-1000:]}"
        raise UnhealthyError(message)
    return run
