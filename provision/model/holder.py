"""Who works on a cluster: the lock's programs for a machine, and what they print. Pure.

The lock is a flock on `provision.model.paths.LOCK`, held by a program on the machine for as long as it
hears from the operator's computer. So the kernel frees it when that program ends, for whatever
reason; no clock but the machine's own counts, and nothing stale is ever left.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from shlex import quote

from provision.model import paths

BEAT = 10  # seconds between two signs of life
LIFE = 60  # seconds of silence after which a holder is dead
HELD = "held"


@dataclass(frozen=True)
class Holder:
    """Who works on a cluster, and at what.

    Attributes:
        command: as it was typed, `clusterctl up inventories/ha.py`.
        began: seconds since 1970, by the machine's clock.
        since, silent: seconds since it began, and since it was heard of last.
        computer: where the process runs, as `state.operators` tells computers apart.
    """

    user: str
    host: str
    pid: int
    command: str
    began: int = 0
    since: int = 0
    silent: int = 0
    computer: str = ""

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.began, UTC)
        return (
            f"{self.user}@{self.host} (process {self.pid}): {self.command}, "
            f"begun {began:%Y-%m-%d %H:%M:%S} UTC, {_span(self.since)} ago, "
            f"last heard of {_span(self.silent)} ago"
        )


def _span(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def parse(output: str) -> Holder | None:
    """The holder that a program below tells of; None when there is none."""
    for line in output.splitlines():
        fields = [*line.split("\t"), *[""] * 9]
        if fields[0] != "busy":
            continue
        # A holder that has not written its line yet has no name.
        now, heard, user, host, pid, command, began, _, computer = fields[1:10]
        return Holder(
            user or "somebody",
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
    """The program that takes a machine's lock: it says `held`, or who has it, and ends.

    It holds the lock until its stdin ends, or brings nothing for `life` seconds.
    """
    words = (me.user, me.host, str(me.pid), me.command)
    line = "\t".join(" ".join(word.split()) for word in words)
    parameters = f"lock={quote(lock)} life={life} computer={quote(me.computer)}"
    return _program(f"{parameters} holder={quote(line)}", _TAKE)


def inspect(lock: str = paths.LOCK) -> str:
    """The program that says who has a machine's lock; nothing when nobody has. POSIX sh."""
    return f"lock={quote(lock)}\n{_BUSY}{_LOOK}"


def free(lock: str = paths.LOCK) -> str:
    """The program that takes a machine's lock away from whoever has it."""
    return _program(f"lock={quote(lock)}", _FREE)


def _program(parameters: str, text: str) -> str:
    # Not exec: a shell that stays tells by its exit status that bash was killed.
    return f"bash -c {quote(f'{parameters}{chr(10)}{_BUSY}{text}')}; exit $?"


# A line `busy`: now, when the holder was heard of last, and what it has written down.
_BUSY = r"""
umask 077
busy() {
    IFS= read -r line <&9
    printf 'busy\t%s\t%s\t%s\n' "$(date +%s)" "$(stat -L -c %Y /dev/fd/9)" "$line"
}
"""

# The file is removed at the end, so its name may mean another file than the one that was opened.
# Who only looks has it for a moment: hence a second of patience.
_TAKE = r"""
while :; do
    exec 9<>"$lock" || exit 1
    flock -w 1 9 && free=yes || free=
    [ "$lock" -ef /dev/fd/9 ] || continue
    [ "$free" ] && break
    busy
    exit 0
done
printf '%s\t%s\t%s\t%s\n' "$holder" "$(date +%s)" "$$" "$computer" >"$lock"
echo held
while read -r -t "$life" _; do touch "$lock"; done
rm -f "$lock"
"""

_LOOK = r"""
[ -e "$lock" ] && exec 9<"$lock" || exit 0
flock -n -s 9 || busy
"""

# Whoever has the file open as its lock is the holder, and no other process of that number.
_FREE = r"""
[ -e "$lock" ] && exec 9<"$lock" || exit 0
IFS=$'\t' read -r _ _ _ _ _ keeper _ <"$lock"
if ! flock -n 9 && [ "$lock" -ef "/proc/$keeper/fd/9" ]; then kill "$keeper"; fi
flock -w 2 9 || { busy; exit 1; }
rm -f "$lock"
"""
