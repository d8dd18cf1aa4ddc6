"""Changes of components -> the bytes that make them on a machine: files and a shell program.

One program makes the changes of several components, since each reload of systemd takes a small
machine a second, and each process some milliseconds. The program is POSIX sh with coreutils,
util-linux and systemd. It can be killed at any line: nothing is ever half written, and the next run
finishes the job. The order ensures that:

1. It writes the records of what will be there. So teardown knows everything, and the hash of a key
   in the record reveals a certificate whose key was not installed.
2. It writes every new file beside its place, complete and with its final owner and mode. Then it
   renames all of them, keys after their certificates.
3. It changes kernel and systemd. Then it changes the units of one component after the other, and
   waits for its health. Only then it records the digests of the component's units.
"""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from shlex import join, quote

from provision.apply.change import ComponentChange
from provision.desired.model import Directory, HostFile
from provision.model import paths
from provision.model.paths import NEW

# Prefixes of lines for the engine: the component that the program works on and its current step, on
# stdout, and the journal of a unit that failed, on stderr.
COMPONENT = "clusterctl-component: "
SAY = "clusterctl: "
JOURNAL = "clusterctl-journal: "


def command(state: str = paths.STATE, prepare: str = "") -> str:
    """The command that reads a payload from stdin and runs it, one at a time on a machine.

    Args:
        state: clusterctl's own directory on the machine.
        prepare: shell command that first changes the unpacked payload in `$work`; empty: none.
    """
    return f"""\
umask 077
install -d -m 0755 {state} || exit 1
exec 9>{state}/lock
flock -w 100 9 || {{ echo 'another run is still busy on this machine' >&2; exit 1; }}
rm -rf {state}/apply.*
work=$(mktemp -d {state}/apply.XXXXXXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
base64 -d | tar -xpzf - -C "$work" || exit 1
{f"{prepare} || exit 1{chr(10)}" if prepare else ""}sh "$work/run" "$work"
"""


COMMAND = command()


def payload(changes: Sequence[ComponentChange], record: str = paths.RECORD) -> str:
    """The changes as text: a gzipped tar in base64, since pyinfra's stdin is lines.

    The same changes give the same text.

    Args:
        changes: of different components.
        record: directory of the machine's record.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, content: bytes, mode: int = 0o600) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = mode
            tar.addfile(info, io.BytesIO(content))

        add("run", program(changes, record).encode())
        for index, file in enumerate(file for change in changes for file in _files(change)):
            add(f"files/{index}", file.content)
        for change in changes:
            if change.record:
                add(f"before/{change.component}", _before(change).encode(), 0o644)
                add(f"after/{change.component}", change.record.encode(), 0o644)
            if change.health:
                add(f"health/{change.component}", change.health.encode())
    return base64.encodebytes(gzip.compress(raw.getvalue(), 6, mtime=0)).decode()


def program(changes: Sequence[ComponentChange], record: str = paths.RECORD) -> str:
    """The shell program; its argument is the directory of the unpacked payload."""
    return _PRELUDE + "".join(f"{line}\n" for line in _lines(changes, record))


def _lines(changes: Sequence[ComponentChange], record: str) -> Iterator[str]:
    if any(change.record for change in changes):
        yield f"install -d -m 0755 {quote(record)}"
        if settings := [part for change in changes for each in _kernel(change) for part in each]:
            yield join(("settings", record, *settings))
        yield f"records {quote(record)}"
    yield from _place(changes)
    yield from _prepare(changes)
    for change in changes:
        yield from _activate(change)
        if change.record:
            ours = quote(f"{record}/{change.component}")
            yield f'mv -fT "$work/after/{change.component}" {ours}'


def _place(changes: Sequence[ComponentChange]) -> Iterator[str]:
    index = 0
    for change in changes:
        files = _files(change)
        if files or change.users or change.directories:
            yield f"component {change.component}"
        for user in change.users:
            yield join(("user", user))
        for access, directories in groupby(change.directories, key=_access):
            yield join(("install", "-d", *access, *(entry.path for entry in directories)))
        if files:
            yield f"say 'write {len(files)} files'"
        here = {i.leaf.key_path: i.key_path for i in change.issued if i.key_path}
        for file in files:
            yield join(("stage", here.get(file.path, str(index)), file.path, *_access(file)))
            index += 1
    new = [file.path for change in changes for file in _files(change)]
    if new:
        yield join(("sync", *(path + NEW for path in new)))
    if units := [path for path in new if PurePosixPath(path).is_relative_to(paths.UNITS)]:
        yield join(("replaces", *units))
    for path in new:
        yield join(("mv", "-fT", path + NEW, path))
    if gone := [path for change in changes for path in change.remove]:
        yield join(("rm", "-f", "--", *gone))


def _prepare(changes: Sequence[ComponentChange]) -> Iterator[str]:
    """Change the kernel, and show systemd the new units."""
    for change in changes:
        for module in change.modules:
            yield join(("load", module))
        for _, path, value in _kernel(change):
            yield join(("kernel", path, value))
    # Without a reload of its own: each takes a small machine a second.
    if enabled := _each(changes, lambda c: (*c.enable, *c.start)):
        yield join(("systemctl", "--quiet", "--no-reload", "enable", *enabled))
    units = _each(changes, _units)
    if known := _each(changes, lambda c: (*_unit_files(c), *_units(c))):
        yield join(("fresh", *known))
    if units:
        yield join(("systemctl", "reset-failed", *units)) + " 2>/dev/null || true"


def _kernel(change: ComponentChange) -> Iterator[tuple[str, str, str]]:
    """Kernel settings: key, path and value."""
    for key, value in change.sysctls:
        yield key, f"/proc/sys/{key if '/' in key else key.replace('.', '/')}", value


def _activate(change: ComponentChange) -> Iterator[str]:
    """Change the component's units and wait for its health."""
    units = _units(change)
    if not units and not change.health:
        return
    yield f"component {change.component}"
    yield f"limit {change.health_timeout}"
    # These calls block, so that nothing polls while a unit gets ready. `settle` decides later if a
    # unit failed, since it may succeed when systemd starts it a second time.
    for verb, names in (
        ("restart", change.restart),
        ("reload-or-restart", change.reload),
        ("start", change.start),
    ):
        if names:
            yield f"say {quote(verb + ' ' + ' '.join(names))}"
            yield join(("unit", verb, *names))
    yield join(("settle", *units))


def _units(change: ComponentChange) -> tuple[str, ...]:
    """The units that run when the change is made."""
    return tuple(dict.fromkeys((*change.restart, *change.reload, *change.start)))


def _unit_files(change: ComponentChange) -> tuple[str, ...]:
    """The units whose files, or files in their directories of drop-ins, are put in place."""
    names = [
        PurePosixPath(file.path).relative_to(paths.UNITS).parts[0].removesuffix(".d")
        for file in change.files
        if PurePosixPath(file.path).is_relative_to(paths.UNITS)
    ]
    return tuple(name for name in names if "@." not in name)  # no template is a unit


def _each(
    changes: Iterable[ComponentChange], of: Callable[[ComponentChange], tuple[str, ...]]
) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for change in changes for name in of(change)))


def _files(change: ComponentChange) -> tuple[HostFile, ...]:
    return (*change.files, *_issued(change))


def _access(entry: Directory | HostFile) -> tuple[str, ...]:
    return ("-m", f"{entry.mode:04o}", "-o", entry.owner, "-g", entry.group)


def _before(change: ComponentChange) -> str:
    """The record until the change is done: files to be removed stay in it until they are removed.

    Files within a leftover of the component are not added: `down` finds them there. Before a run
    that was cut off is finished, a program may make such a file again: a kubelet its certificate.
    """
    before = change.record_before or change.record
    lines = (line.split("\t") for line in change.record.splitlines())
    whole = [line[1] for line in lines if line[0] == "leftover"]
    gone = [p for p in change.remove if not any(PurePosixPath(p).is_relative_to(w) for w in whole)]
    return before + "".join(f"leftover\t{path}\n" for path in gone)


def _issued(change: ComponentChange) -> Iterator[HostFile]:
    """Certificates, each before its key."""
    for issued in change.issued:
        leaf = issued.leaf
        yield HostFile(leaf.cert_path, issued.certificate, 0o644, leaf.owner, leaf.group)
        yield HostFile(leaf.key_path, issued.key, 0o600, leaf.owner, leaf.group, secret=True)


_PRELUDE = f"""\
set -eu
umask 077
work=$1
reload=""

component() {{ # NAME: work on it
    component=$1
    echo "{COMPONENT}$1"
}}

say() {{ echo "{SAY}$*"; }}

records() {{ # DIRECTORY: write all records of what will be there; the final ones are ready
    sync "$work"/before/* "$work"/after/*
    mv -f "$work"/before/* "$1"
}}

user() {{ # NAME
    getent group "$1" >/dev/null || groupadd --system "$1"
    getent passwd "$1" >/dev/null || useradd --system --gid "$1" --no-create-home \\
        --home-dir /nonexistent --shell /usr/sbin/nologin "$1"
}}

stage() {{ # INDEX|FILE PATH ACCESS...: of the payload, or a key that this machine has made
    case $1 in
    /*) from=$1 ;;
    *) from=$work/files/$1 ;;
    esac
    new="$2{NEW}"
    shift 2
    # install removes what is in the way, makes the file 0600, fills it, and only then sets owner
    # and mode.
    install -T "$@" "$from" "$new"
}}

load() {{ # MODULE
    [ -d "/sys/module/$(echo "$1" | tr - _)" ] || modprobe "$1" 2>/dev/null ||
        say "module $1 could not be loaded: the kernel may have it built in"
}}

kernel() {{ # FILE VALUE
    if ! echo "$2" 2>/dev/null >"$1"; then
        say "$1 cannot be set to $2 here; it is $(cat "$1" 2>/dev/null || echo missing)"
    fi
}}

settings() {{ # RECORD, then KEY PATH VALUE of each: write down kernel settings before their first change
    ours=$1/kernel
    shift
    touch "$ours"
    cp "$ours" "$ours{NEW}"
    while [ $# -gt 0 ]; do
        before=$(awk -F '\t' -v path="$2" '$2 == path {{print $3}}' "$ours")
        # If the file sets it already, an older clusterctl made the first change.
        if [ -z "$before" ] && ! grep -qsF "$1 = " {paths.SYSCTLS}; then
            before=$(cat "$2" 2>/dev/null) || true
        fi
        if [ -n "$before" ]; then
            awk -F '\t' -v path="$2" '$2 != path' "$ours{NEW}" >"$work/kernel"
            printf 'sysctl\t%s\t%s\t%s\n' "$2" "$before" "$3" >>"$work/kernel"
            cat "$work/kernel" >"$ours{NEW}"
        fi
        shift 3
    done
    sync "$ours{NEW}"
    mv -fT "$ours{NEW}" "$ours"
}}

replaces() {{ # FILES that systemd reads: if one is there already, systemd has to reload
    for path; do
        [ ! -e "$path" ] || reload=yes
    done
}}

fresh() {{ # UNITS: systemd knows their files as they are, though a killed run did not tell it
    # systemd reads a new unit file by itself, unless it has looked for it in vain.
    case $reload$(systemctl show -p NeedDaemonReload -p LoadState --value "$@") in
    *yes* | *not-found*) systemctl daemon-reload ;;
    esac
}}

limit() {{ # SECONDS that the component has from now on until it is healthy
    limit=$1
    now
    deadline=$((now + limit))
}}

now() {{ # in `now`: seconds since the machine started
    read -r now _ </proc/uptime
    now=${{now%.*}}
}}

unit() {{ # VERB UNITS
    now
    left=$((deadline - now))
    timeout "$((left > 1 ? left : 1))" systemctl --quiet "$@" || true
}}

shown() {{ # UNIT PROPERTY
    systemctl show -p "$2" --value "$1"
}}

healthy() {{ # UNITS: all run, and the component's own check succeeds; `states` has one per unit
    states="" running=0
    [ $# -eq 0 ] || states=$(systemctl is-active "$@") || true
    for state in $states; do
        [ "$state" = active ] || return 1
        running=$((running + 1))
    done
    [ "$running" -eq $# ] || return 1
    [ ! -e "$work/health/$component" ] ||
        timeout 10 sh "$work/health/$component" >"$work/answer" 2>&1
}}

restarts() {{ # UNITS: in `restarts`: how often systemd has started one of them again, at most
    restarts=0
    [ $# -gt 0 ] || return 0
    for times in $(systemctl show -p NRestarts --value "$@"); do
        case $times in
        *[!0-9]*) ;;
        *) [ "$times" -le "$restarts" ] || restarts=$times ;;
        esac
    done
}}

steady() {{ # UNITS: healthy, and if one ended since `settle` began, still so after a restart interval
    healthy "$@" || return 1
    restarts "$@"
    [ "$restarts" -gt "$earlier" ] || return 0
    before=$restarts
    sleep 2
    healthy "$@" || return 1
    restarts "$@"
    [ "$restarts" -eq "$before" ]
}}

those() {{ # OPERATOR STATE UNITS: the units whose state in `states` is this, or is not
    operator=$1 wanted=$2
    shift 2
    for state in $states; do
        [ "$state" "$operator" "$wanted" ] && echo "$1"
        shift
    done
}}

settle() {{ # UNITS
    say "wait until healthy"
    pause=2
    : >"$work/answer"
    # A unit that only reloads keeps the count of its whole life; a start sets it to 0.
    restarts "$@"
    earlier=$restarts
    until steady "$@"; do
        stopped=$(those = failed "$@")
        now
        restarts "$@"
        again=$((restarts - earlier))
        if [ -n "$stopped" ] || [ "$again" -ge 2 ] || [ "$now" -ge "$deadline" ]; then
            guilty=${{stopped:-$(those != active "$@")}}
            if [ -z "$stopped" ] && [ "$again" -ge 2 ]; then
                guilty=$(for unit; do
                    [ "$(shown "$unit" NRestarts)" -lt "$restarts" ] || echo "$unit"
                done)
            fi
            for unit in $guilty; do
                echo "$unit is $(shown "$unit" ActiveState) ($(shown "$unit" SubState)," \\
                    "$(shown "$unit" Result)); restarts: $(shown "$unit" NRestarts)" >&2
            done
            [ -n "$guilty" ] || echo "not healthy after $limit s" >&2
            [ ! -s "$work/answer" ] || tail -n 5 "$work/answer" >&2
            for unit in ${{guilty:-$@}}; do
                journalctl -u "$unit" -n 20 --no-pager -o cat 2>/dev/null |
                    sed "s/^/{JOURNAL}/" >&2
            done
            exit 1
        fi
        # Each look takes a small machine time that the component needs.
        sleep "$((pause / 10)).$((pause % 10))"
        pause=$((pause < 8 ? pause + 1 : pause))
    done
}}

"""
