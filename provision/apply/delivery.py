"""Artifacts to machines: each downloads, or one gets all from here and hands them on.

What has a URL the machines download themselves. What is a file here is sent, compressed, to one
machine of each architecture, the seed; the others fetch from it over their own network while the
rest is still on its way. Where they cannot reach the seed, they get their own copy from here.

On the seed a transient systemd service listens; it ends by itself after `TIMEOUT`, and whatever
ends it removes the compressed files. It hands out nothing but files that are asked for by SHA-256.

Every machine verifies the SHA-256 of what it is about to install, and renames it into place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote

import gevent

from provision.apply.checked import checked
from provision.apply.engine import Engine
from provision.apply.install import SAY
from provision.apply.operating import MachineResult
from provision.apply.operations.deliver import TIMEOUT, take
from provision.apply.ssh import last_lines
from provision.artifacts import compressed
from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet, Ready
from provision.local.progress import Progress
from provision.model import paths, ports
from provision.model.cluster import Machine
from provision.model.errors import ClusterctlError, Failure, PhaseError, UnreachableError
from provision.model.paths import NEW
from provision.model.settings.network import HttpProxy

PHASE = "artifacts"
UNIT = "clusterctl-artifacts.service"
REACH = 3  # seconds until a seed that does not answer counts as unreachable
STALLED = 60  # seconds without anything after which a download or a copy is given up
_PIECE = 4 << 20  # bytes, of a copy, in that time; slower, and all would not arrive in `TIMEOUT`
_UNREACHABLE = "clusterctl-unreachable"


@dataclass(frozen=True)
class Want:
    """An artifact that a machine needs.

    Attributes:
        artifact: the catalogue's name, or `images`.
        path: where it goes: the executable, or the registry's directory.
        arch: the machine's.
    """

    artifact: str
    path: str
    arch: str


Needs = Mapping[str, Sequence[tuple[Ready, Want]]]  # by machine


@dataclass(frozen=True)
class Group:
    """A seed, and the machines that fetch from it (the seed too)."""

    seed: Machine
    machines: tuple[Machine, ...]
    items: tuple[Ready, ...]


def deliver(
    engine: Engine,
    wants: Mapping[str, Sequence[Want]],
    artifacts: ArtifactSet,
    progress: Progress,
    finished: Callable[[Machine], None] = lambda _: None,
) -> None:
    """Bring to every machine what it wants; a machine that wants nothing is not touched.

    Args:
        finished: is told of each machine that has all it wants, while others still wait.

    Raises:
        PhaseError: with every machine that did not get all; what was verified is in place.
        KeyError: the set lacks an artifact.
    """
    needs = {
        name: tuple((artifacts.get(w.artifact, w.arch), w) for w in ws)
        for name, ws in wants.items()
        if ws
    }
    machines = [machine for machine in engine.cluster.machines if machine.name in needs]
    groups = _groups(machines, needs)
    remote = [machine for machine in machines if not _local(needs[machine.name])]
    unreachable = _round(engine, needs, groups, remote, progress, finished)
    if unreachable:
        names = ", ".join(machine.name for machine in unreachable)
        progress.note(
            f"{names}: cannot reach port {ports.ARTIFACTS} of the machine that has the artifacts; "
            "sending them from here"
        )
        alone = [Group(m, (m,), _local(needs[m.name])) for m in unreachable]
        if lost := _round(engine, needs, alone, (), progress, finished):
            cause = f"its own service on port {ports.ARTIFACTS} does not answer"
            raise PhaseError(PHASE, [Failure(m.name, "copy artifacts", cause) for m in lost])


def _groups(machines: Iterable[Machine], needs: Needs) -> list[Group]:
    """One for each architecture; its seed is the machine that needs most."""
    by_arch: dict[str, list[Machine]] = defaultdict(list)
    for machine in machines:
        if local := _local(needs[machine.name]):
            by_arch[local[0].arch].append(machine)

    def size(machine: Machine) -> int:
        return sum(_size(ready) for ready in _local(needs[machine.name]))

    groups = []
    for members in by_arch.values():
        union = {ready.pin: ready for m in members for ready in _local(needs[m.name])}
        ordered = tuple(sorted(union.values(), key=_size, reverse=True))
        groups.append(Group(max(members, key=size), tuple(members), ordered))
    return groups


def _local(items: Iterable[tuple[Ready, Want]]) -> tuple[Ready, ...]:
    return tuple(ready for ready, _ in items if ready.local)


def _size(ready: Ready) -> int:
    return ready.local.stat().st_size if ready.local else 0


def _round(
    engine: Engine,
    needs: Needs,
    groups: Sequence[Group],
    remote: Sequence[Machine],
    progress: Progress,
    finished: Callable[[Machine], None],
) -> list[Machine]:
    """Serve, push and take, all at once. Give the machines that cannot reach their seed."""
    proxy = engine.cluster.proxy
    programs = {m.name: program(needs[m.name], "", proxy) for m in remote}
    for group in groups:
        seed = str(group.seed.address)
        programs |= {m.name: program(needs[m.name], seed, proxy) for m in group.machines}
    machines = [machine for machine in engine.cluster.machines if machine.name in programs]
    failures: tuple[Failure, ...] = ()
    results = {}

    def took(name: str, result: MachineResult) -> None:
        if not _cut_off(result):
            finished(engine.cluster.machine(name))

    pushes = []
    try:
        for group in groups:
            _command(engine, group.seed, "serve", serve(str(group.seed.address)))
            pushes.append(gevent.spawn(_push, engine, group, progress))
        results = engine.run(
            PHASE,
            lambda m: take(program=programs[m.name], name="artifacts"),
            machines,
            progress,
            finished=took,
        )
    except PhaseError as error:
        failures = error.failures
    finally:
        gevent.killall(pushes, timeout=1)
        for group in groups:
            _stop(engine, group.seed)
    broken = tuple(push.value for push in pushes if isinstance(push.value, Failure))
    if broken or failures:
        raise PhaseError(PHASE, broken + failures)
    return [m for m in machines if _cut_off(results[m.name])]


def _cut_off(result: MachineResult) -> bool:
    return any(_UNREACHABLE in operation.output for operation in result.operations)


def _push(engine: Engine, group: Group, progress: Progress) -> Failure | None:
    """Send the group's artifacts to its seed, large ones first, one channel for all."""
    name = ""
    pool = gevent.get_hub().threadpool
    packed = [pool.spawn(_packed, ready) for ready in group.items]

    def sources() -> Iterator[Path | bytes]:
        nonlocal name
        for ready, job in zip(group.items, packed, strict=True):
            name = ready.name
            path: Path | OSError = job.get()
            if isinstance(path, OSError):
                raise path
            yield f"{ready.pin} {path.stat().st_size}\n".encode()
            yield path

    def sent(total: int) -> None:
        progress.update(group.seed.name, f"send {name}, {total / 1e6:.0f} MB")

    try:
        code, _, stderr = engine.stream(
            group.seed, f"bash -c {quote(_RECEIVE)}", sources(), sent=sent, timeout=TIMEOUT
        )
        if code == 0:
            return None
        cause, hint = last_lines(stderr) or f"exit status {code}", ""
    except ClusterctlError as error:
        cause, hint = error.message, error.hint
    # Those that wait for the rest would wait in vain.
    _stop(engine, group.seed)
    return Failure(group.seed.name, "send artifacts", cause, hint=hint)


def _packed(ready: Ready) -> Path | OSError:
    """What a thread raises, gevent prints; so the error is given back."""
    try:
        return compressed(ready)
    except OSError as error:
        return error


def _command(engine: Engine, machine: Machine, step: str, command: str) -> None:
    try:
        checked(engine.shell(machine, command), machine, PHASE, f"{step} artifacts")
    except UnreachableError as error:
        failure = Failure(machine.name, f"{step} artifacts", error.message, hint=error.hint)
        raise PhaseError(PHASE, [failure]) from error


def _stop(engine: Engine, seed: Machine) -> None:
    """End the service; a seed that cannot be told within seconds ends it by itself."""
    with gevent.Timeout(REACH, False), suppress(UnreachableError):
        engine.shell(seed, f"systemctl --quiet stop {UNIT}")


def serve(address: str) -> str:
    """Give the command that starts the seed's service, and waits until it listens."""
    listens = f"bash -c ': <>/dev/tcp/{address}/{ports.ARTIFACTS}' 2>/dev/null"
    return "\n".join(
        (
            f"systemctl --quiet stop {UNIT} 2>/dev/null",
            f"install -d -m 0755 {paths.STATE} {paths.ARTIFACTS} || exit 1",
            f"printf %s {quote(_SERVE)} >{paths.ARTIFACTS}/serve",
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
    """Give the bash program that takes a machine's artifacts.

    Args:
        items: what, and where to.
        seed: address of the machine that hands out the local ones, compressed; or the directory
            of the machine itself where they are.
        proxy: for downloads.
    """
    local = sorted((i for i in items if i[0].local), key=lambda i: _size(i[0]), reverse=True)
    remote = [item for item in items if not item[0].local]
    # In braces: bash reads it whole before it begins, and begins none that was cut off.
    lines = ["{", _TAKE]
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


# On the seed, fed by `_push`: for each artifact a line `PIN SIZE` and that many bytes.
_RECEIVE = f"""\
set -eu
cd {paths.ARTIFACTS}
while read -r pin size; do
    head -c "$size" >"$pin.part"
    [ "$(stat -c %s "$pin.part")" = "$size" ] || {{ echo "$pin was cut off" >&2; exit 1; }}
    mv "$pin.part" "$pin.zst"
done
"""

# On the seed, for each connection: waits until what is asked for has arrived, with empty lines to say
# that it is alive; then sends it.
_SERVE = f"""\
read -r -t 30 pin
[[ $pin =~ ^[0-9a-f]{{64}}$ ]] || exit 1
until [[ -e {paths.ARTIFACTS}/$pin.zst ]]; do
    echo || exit 1
    read -r -t 0.1 || (($? > 128)) || exit 1
done
echo begin
exec cat {paths.ARTIFACTS}/$pin.zst
"""

_TAKE = f"""\
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
        echo {_UNREACHABLE}
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
        LC_ALL=C timeout "$stalled" dd bs={_PIECE} count=1 iflag=fullblock <&3 2>"$work/said" || exit 1
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
