"""The programs that lock a machine for one operator, and what they print. Pure.

The lock is a flock on `provision.model.paths.LOCK`. A program on the machine holds it as long as it
receives data from the operator's computer. The kernel frees the lock when that program ends, for
any reason. Only the machine's own clock counts, and a stale lock is impossible.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files as resources
from shlex import quote

from provision.model import paths
from provision.model.holder import LIFE, Holder
from provision.model.shell import with_parameters

HELD = "held"  # what `take` prints when it has the lock


def parse(output: str) -> Holder | None:
    """Parse the holder that one of the programs prints; None: no run holds the lock."""
    for line in output.splitlines():
        fields = [*line.split("\t"), *[""] * 9]
        if fields[0] != "busy":
            continue
        # The holder may not have written its line yet.
        now, heard, user, host, pid, command, began, _, computer = fields[1:10]
        return Holder(
            user or "unknown",
            host,
            _number(pid),
            command,
            _number(began),
            max(_number(now) - _number(began), 0),
            max(_number(now) - _number(heard), 0),
            computer,
        )
    return None


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 12 else 0


def take(me: Holder, lock: str = paths.LOCK, life: int = LIFE) -> str:
    """Give the program that takes a machine's lock.

    If it gets the lock, it prints `held`. It holds the lock until its stdin ends, or has no data
    for `life` seconds. If another run holds the lock, it prints the holder, and ends.
    """
    words = (me.user, me.host, str(me.pid), me.command)
    line = "\t".join(" ".join(word.split()) for word in words)
    return _by_bash("take.bash", lock=lock, life=str(life), computer=me.computer, holder=line)


def inspect(lock: str = paths.LOCK) -> str:
    """Give the program that prints the holder of a machine's lock, or nothing. POSIX sh."""
    return _program("inspect.sh", lock=lock)


def free(lock: str = paths.LOCK) -> str:
    """Give the program that frees a machine's lock, for any holder."""
    return _by_bash("free.bash", lock=lock)


def _by_bash(file: str, **parameters: str) -> str:
    # No exec: the outer shell remains, and its exit status shows that bash was killed.
    return f"bash -c {quote(_program(file, **parameters))}; exit $?"


def _program(file: str, **parameters: str) -> str:
    return with_parameters(_text("busy.sh") + _text(file), **parameters)


@cache
def _text(file: str) -> str:
    return resources(__package__).joinpath(file).read_text()
