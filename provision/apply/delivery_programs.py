"""The shell programs that deliver artifacts. Pure.

On the seed, one program receives them from the operator's computer, and another serves them. On
every machine, a program takes them, verifies their SHA-256 and renames them into place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import join, quote

from provision.apply.install import SAY
from provision.apply.operations.deliver import TIMEOUT
from provision.artifacts.images import IMAGES
from provision.artifacts.model import Ready
from provision.model import paths, ports
from provision.model.paths import NEW
from provision.model.settings.network import HttpProxy

UNIT = "clusterctl-artifacts.service"
REACH = 3  # seconds until a seed that does not answer counts as unreachable
STALLED = 60  # seconds without progress until a download or a copy is given up
# Bytes of a copy that must arrive in that time: a slower copy would not end within `TIMEOUT`.
_PIECE = 4 << 20
_BLOCK = 64 << 10  # bytes that one read takes: as much as a pipe holds
UNREACHABLE = "clusterctl-unreachable"  # a machine that cannot reach its seed prints this


@dataclass(frozen=True)
class Want:
    """An artifact that a machine needs.

    Attributes:
        artifact: the catalogue's name, or `images`.
        path: its place: the path of the executable, or the registry's directory.
        arch: architecture of the machine.
    """

    artifact: str
    path: str
    arch: str


def size_of(ready: Ready) -> int:
    """Bytes of the local file; 0: there is none, the machine downloads the artifact."""
    return ready.local.stat().st_size if ready.local else 0


def serve(address: str) -> str:
    """The command that starts the seed's service and waits until it listens.

    Args:
        address: of the seed; the service listens there.
    """
    listens = f"bash -c ': <>/dev/tcp/{address}/{ports.ARTIFACTS}' 2>/dev/null"
    return "\n".join(
        (
            f"systemctl --quiet stop {UNIT} 2>/dev/null",
            f"install -d -m 0755 {paths.STATE} {paths.ARTIFACTS} || exit 1",
            f"printf %s {quote(SERVE)} >{paths.ARTIFACTS}/serve",
            join(
                (
                    "systemd-run",
                    "--quiet",
                    "--collect",
                    f"--unit={UNIT}",
                    f"--property=RuntimeMaxSec={TIMEOUT}",
                    f"--property=ExecStopPost=/bin/rm -rf {paths.ARTIFACTS}",
                    "systemd-socket-activate",
                    "--accept",
                    "--inetd",
                    f"--listen={address}:{ports.ARTIFACTS}",
                    "/bin/bash",
                    f"{paths.ARTIFACTS}/serve",
                )
            )
            + " || exit 1",
            f"for _ in $(seq 100); do {listens} && exit 0; sleep 0.1; done",
            f"systemctl status --no-pager {UNIT} >&2; exit 1",
        )
    )


def program(items: Sequence[tuple[Ready, Want]], seed: str, proxy: HttpProxy) -> str:
    """The bash program that takes a machine's artifacts.

    Args:
        items: the artifacts, each with its place.
        seed: address of the machine that serves the local artifacts, compressed; or the directory
            on the machine itself that has them.
        proxy: for downloads.
    """
    local = sorted((i for i in items if i[0].local), key=lambda i: size_of(i[0]), reverse=True)
    remote = [item for item in items if not item[0].local]
    # In braces: bash reads the whole program before it starts, and starts none that was cut off.
    lines = ["{", TAKE]
    lines += [
        f"export {name}={quote(value)}"
        for name, value in (
            ("http_proxy", proxy.http),
            ("https_proxy", proxy.https),
            ("no_proxy", ",".join(proxy.no_proxy)),
        )
        if value and remote
    ]
    if local:
        lines.append(f"reach {seed}")
    for ready, want in local:
        lines.append(join(("copy", ready.name, ready.pin, want.path)))
        lines.append(_installed(ready, want))
    for ready, want in remote:
        lines.append(
            join(
                ("download", ready.name, ready.pin, ready.url or "", ready.member or "", want.path)
            )
        )
        lines.append(_installed(ready, want))
    return "\n".join((*lines, "}"))


def _installed(ready: Ready, want: Want) -> str:
    if ready.name == IMAGES:
        return join(("unpack", want.path, ready.pin))
    return join(("place", want.path, ready.pin, ready.version))


# Runs on the seed. Its stdin, from `_push`: for each artifact a line `PIN SIZE`, then SIZE bytes.
RECEIVE = f"""\
set -eu
cd {paths.ARTIFACTS}
while read -r pin size; do
    head -c "$size" >"$pin.part"
    [ "$(stat -c %s "$pin.part")" = "$size" ] || {{ echo "$pin was cut off" >&2; exit 1; }}
    mv "$pin.part" "$pin.zst"
done
"""

# Runs on the seed for each connection. It waits until the requested artifact has arrived, and sends
# empty lines meanwhile to show that it is alive; then it sends the artifact.
SERVE = f"""\
read -r -t 30 pin
[[ $pin =~ ^[0-9a-f]{{64}}$ ]] || exit 1
until [[ -e {paths.ARTIFACTS}/$pin.zst ]]; do
    echo || exit 1
    read -r -t 0.1 || (($? > 128)) || exit 1
done
echo begin
exec cat {paths.ARTIFACTS}/$pin.zst
"""

TAKE = f"""\
set -euo pipefail
umask 022
stalled={STALLED}
record={paths.RECORD}/artifacts
install -d -m 0755 {paths.STATE} {paths.RECORD}
exec 9>{paths.STATE}/lock
flock -w 300 9 || {{ echo 'another run is still busy on this machine' >&2; exit 1; }}
rm -rf {paths.STATE}/take.*
work=$(mktemp -d {paths.STATE}/take.XXXXXXXXXX)
trap 'rm -rf "$work"' EXIT

say() {{ echo "{SAY}$*"; }}

die() {{
    echo "$*" >&2
    exit 1
}}

digest() {{ # FILE: in `sha`; openssl uses the processor's SHA instructions, coreutils often not
    if command -v openssl >/dev/null; then
        sha=$(openssl dgst -sha256 -r "$1")
    else
        sha=$(sha256sum <"$1")
    fi
    sha=${{sha:0:64}}
}}

verify() {{ # FILE NAME EXPECTED
    digest "$1"
    [[ $sha == "$3" ]] || die "$2: expected SHA-256 $3, got $sha; it was not installed"
}}

remember() {{ # KEY [VALUE]: one line of the record, instead of the one with the same key
    local line
    {{
        [[ ! -e $record ]] || while IFS= read -r line; do
            [[ $line == "$1" || $line == "$1"$'\\t'* ]] || printf '%s\\n' "$line"
        done <"$record"
        printf '%s\\n' "$1${{2:+$'\\t'$2}}"
    }} >"$record{NEW}"
    mv -fT "$record{NEW}" "$record"
}}

directory() {{ # PATH: made and remembered, if it is not there
    [[ ! -d $1 ]] || return 0
    directory "${{1%/*}}"
    remember $'dir\\t'"$1"
    install -d -m 0755 "$1"
}}

reach() {{ # ADDRESS OR DIRECTORY
    seed=$1
    [[ $seed != /* ]] || return 0
    timeout {REACH} bash -c ': <>"/dev/tcp/$0/{ports.ARTIFACTS}"' "$seed" 2>/dev/null || {{
        echo {UNREACHABLE}
        exit 0
    }}
}}

begin() {{ # NAME PATH: where its file is to be until it is verified
    say "$1"
    directory "${{2%/*}}"
    if [[ $1 == {IMAGES} ]]; then new=$work/{IMAGES}; else new=$2{NEW}; fi
    trap 'rm -rf "$work" "$new"' EXIT
}}

copy() {{ # NAME PIN PATH
    begin "$1" "$3"
    if [[ $seed == /* ]]; then
        exec 3<"$seed/$2.zst"
    else
        exec 3<>"/dev/tcp/$seed/{ports.ARTIFACTS}"
        echo "$2" >&3
        local line=
        until [[ $line == begin ]]; do
            read -r -t "$stalled" line <&3 || die "$1: $seed does not answer; it was not installed"
        done
    fi
    # Not by `head`, which may read more than it gives.
    local got=
    until [[ $got == 0+0 ]]; do
        LC_ALL=C timeout "$stalled" dd bs={_BLOCK} count={_PIECE // _BLOCK} iflag=fullblock <&3 2>"$work/said" || exit 1
        read -r got _ <"$work/said"
    done | zstd -dcq >"$new" || die "$1: the copy from $seed broke off; it was not installed"
    exec 3>&-
    verify "$new" "$1" "$2"
}}

load() {{ # URL FILE
    if command -v curl >/dev/null; then
        curl -fsSL --connect-timeout 10 --speed-limit 1000 --speed-time "$stalled" -o "$2" "$1"
    elif command -v wget >/dev/null; then
        wget -nv --tries=1 --timeout="$stalled" -O "$2" "$1"
    else
        die "there is neither curl nor wget to download $1"
    fi
}}

download() {{ # NAME PIN URL MEMBER PATH
    begin "$1" "$5"
    local file=$work/$2
    if [[ ! -e $file ]]; then
        load "$3" "$file.part" || {{ sleep 1 && load "$3" "$file.part"; }} ||
            {{ sleep 3 && load "$3" "$file.part"; }} || die "$1: $3 could not be downloaded"
        verify "$file.part" "$3" "$2"
        mv "$file.part" "$file"
    fi
    if [[ -n $4 ]]; then
        tar -xOf "$file" "$4" >"$new" || die "$1: $3 has no $4"
        digest "$new"
    else
        cp "$file" "$new"
        sha=$2
    fi
}}

place() {{ # PATH PIN VERSION
    chmod 0755 "$new"
    mv -fT "$new" "$1"
    remember $'binary\\t'"$1" "$2"$'\\t'"$3"$'\\t'"$sha"$'\\t'"$(stat -c $'%s\\t%i\\t%Y\\t%Z' "$1")"
}}

unpack() {{ # DIRECTORY PIN
    directory "$1"
    tar -xf "$new" --no-same-owner -C "$1"
    rm -f "$new"
    remember {IMAGES} "$2"
}}
"""
