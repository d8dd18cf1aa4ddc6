"""A component's change -> the bytes that do it on a machine: files and a shell program.

The program is POSIX sh with coreutils, util-linux and systemd. It can be killed at any line:
nothing is ever half written, and the next run finishes the job. The order ensures that:

1. It writes the record of what will be there. So teardown knows everything, and the hash of a key
   in the record reveals a certificate whose key was not installed.
2. It writes every new file beside its place, complete and with its final owner and mode. Then it
   renames all of them, keys after their certificates.
3. It changes kernel, systemd and units, and waits for health. Only then it records the units'
   digests.
"""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from shlex import join, quote

from provision.apply.change import ComponentChange
from provision.desired.model import Directory, HostFile
from provision.model import paths
from provision.model.paths import NEW

# Prefixes of lines for the engine: the program's current step, on stdout, and the journal of a unit
# that failed, on stderr.
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
base64 -d | tar -xzf - -C "$work" || exit 1
{f"{prepare} || exit 1{chr(10)}" if prepare else ""}sh "$work/run" "$work"
"""


COMMAND = command()


def payload(change: ComponentChange, record: str = paths.RECORD) -> str:
    """The change as text: a gzipped tar in base64, since pyinfra's stdin is lines.

    The same change gives the same text.

    Args:
        record: directory of the machine's record.
    """
    files = [*change.files, *_issued(change)]
    members = {"run": program(change, record).encode()}
    members |= {f"files/{index}": file.content for index, file in enumerate(files)}
    members |= {
        name: text.encode()
        for name, text in (
            ("before", _before(change)),
            ("record", change.record),
            ("health", change.health),
        )
        if text
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o600
            tar.addfile(info, io.BytesIO(content))
    return base64.encodebytes(gzip.compress(raw.getvalue(), 6, mtime=0)).decode()


def program(change: ComponentChange, record: str = paths.RECORD) -> str:
    """The shell program; its argument is the directory of the unpacked payload."""
    return _PRELUDE + "".join(f"{line}\n" for line in _lines(change, record))


def _lines(change: ComponentChange, record: str) -> Iterator[str]:
    ours = quote(f"{record}/{change.component}")
    if change.record:
        yield f"install -d -m 0755 {quote(record)}"
        yield f"record before {ours}"
    yield from _place(change)
    yield from _activate(change)
    if change.record:
        yield f"record record {ours}"


def _place(change: ComponentChange) -> Iterator[str]:
    for user in change.users:
        yield join(("user", user))
    for directory in change.directories:
        yield join(("install", "-d", *_access(directory), directory.path))
    files = [*change.files, *_issued(change)]
    if files:
        yield f"say 'write {len(files)} files'"
    here = {issued.leaf.key_path: issued.key_path for issued in change.issued if issued.key_path}
    for index, file in enumerate(files):
        yield join(("stage", here.get(file.path, str(index)), file.path, *_access(file)))
    if files:
        yield join(("sync", *(file.path + NEW for file in files)))
    for file in files:
        yield join(("mv", "-fT", file.path + NEW, file.path))
    if change.remove:
        yield join(("rm", "-f", "--", *change.remove))


def _activate(change: ComponentChange) -> Iterator[str]:
    for module in change.modules:
        yield join(("load", module))
    for key, value in change.sysctls:
        path = key if "/" in key else key.replace(".", "/")
        yield join(("kernel", f"/proc/sys/{path}", value))
    units = tuple(dict.fromkeys((*change.restart, *change.reload, *change.start)))
    # Before systemd reloads, and without a reload of its own: each reload takes a small machine a
    # second.
    if enabled := (*change.enable, *change.start):
        yield join(("systemctl", "--quiet", "--no-reload", "enable", *enabled))
    if change.daemon_reload:
        yield "systemctl daemon-reload"
    elif units:
        yield join(("fresh", *units))
    # These calls block, so that nothing polls while a unit gets ready. `settle` decides later if a
    # unit failed, since it may succeed when systemd starts it a second time.
    if units:
        yield join(("systemctl", "reset-failed", *units)) + " 2>/dev/null || true"
    yield f"deadline=$(($(date +%s) + {change.health_timeout}))"
    for verb, names in (
        ("restart", change.restart),
        ("reload-or-restart", change.reload),
        ("start", change.start),
    ):
        if names:
            yield f"say {quote(verb + ' ' + ' '.join(names))}"
            yield f'timeout "$(left)" systemctl --quiet {verb} {join(names)} || true'
    if units or change.health:
        yield join(("settle", str(change.health_timeout), *units))


def _access(entry: Directory | HostFile) -> tuple[str, ...]:
    return ("-m", f"{entry.mode:04o}", "-o", entry.owner, "-g", entry.group)


def _before(change: ComponentChange) -> str:
    """The record until the change is done: files to be removed stay in it until they are removed.

    Files within a leftover of the component are not added: `down` finds them there. Before a run
    that was cut off is finished, a program may make such a file again: a kubelet its certificate.
    """
    if not change.record:
        return ""
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

say() {{ echo "{SAY}$*"; }}

record() {{ # FROM TO
    install -m 0644 "$work/$1" "$2{NEW}"
    sync "$2{NEW}"
    mv -fT "$2{NEW}" "$2"
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
    rm -f -- "$new"
    # install makes the file 0600, fills it, and only then sets owner and mode.
    install "$@" "$from" "$new"
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

fresh() {{ # UNITS: systemd knows their files as they are, though a killed run did not tell it
    case $(systemctl show -p NeedDaemonReload --value "$@") in
    *yes*) systemctl daemon-reload ;;
    esac
}}

left() {{
    seconds=$((deadline - $(date +%s)))
    echo $((seconds > 1 ? seconds : 1))
}}

shown() {{ # UNIT PROPERTY
    systemctl show -p "$2" --value "$1"
}}

idle() {{ # UNITS: those that do not run
    for unit; do
        [ "$(shown "$unit" ActiveState)" = active ] || echo "$unit"
    done
}}

healthy() {{
    [ ! -e "$work/health" ] || timeout 10 sh "$work/health" >"$work/answer" 2>&1
}}

settle() {{ # TIMEOUT UNITS
    limit=$1
    shift
    say "wait until healthy"
    until healthy && [ -z "$(idle "$@")" ]; do
        stopped=""
        for unit; do
            ! systemctl --quiet is-failed "$unit" || stopped="$stopped $unit"
        done
        if [ -n "$stopped" ] || [ "$(date +%s)" -ge "$deadline" ]; then
            guilty=${{stopped:-$(idle "$@")}}
            for unit in $guilty; do
                echo "$unit is $(shown "$unit" ActiveState) ($(shown "$unit" SubState)," \\
                    "$(shown "$unit" Result))" >&2
            done
            [ -n "$guilty" ] || echo "not healthy after $limit s" >&2
            [ ! -s "$work/answer" ] || tail -n 5 "$work/answer" >&2
            for unit in ${{guilty:-$@}}; do
                journalctl -u "$unit" -n 20 --no-pager -o cat 2>/dev/null |
                    sed "s/^/{JOURNAL}/" >&2
            done
            exit 1
        fi
        sleep 0.2
    done
}}

"""
