"""Deliver artifacts: machines download them, or fetch them from a machine that got them from here.

Machines download artifacts that have a URL. This computer sends artifacts that are local files,
compressed, to one machine of each architecture: the seed. The other machines fetch them from the
seed over their own network, while the rest is still being sent. A machine that cannot reach the
seed gets its own copy from this computer.

A transient systemd service listens on the seed. It ends by itself after `TIMEOUT`. Whenever it
ends, it removes the compressed files. It serves only files that are requested by their SHA-256.

Every machine verifies the SHA-256 of an artifact before it installs it, and renames it into place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import gevent

from provision.apply.checked import checked
from provision.apply.delivery_programs import (
    REACH,
    RECEIVE,
    UNIT,
    UNREACHABLE,
    Want,
    program,
    serve,
    size_of,
)
from provision.apply.engine import Engine
from provision.apply.operating import MachineResult
from provision.apply.operations.deliver import TIMEOUT, take
from provision.apply.ssh import last_lines
from provision.artifacts import compressed
from provision.artifacts.model import ArtifactSet, Ready
from provision.local.progress import Progress
from provision.model import ports
from provision.model.cluster import Machine
from provision.model.errors import ClusterctlError, Failure, PhaseError, UnreachableError

PHASE = "artifacts"


Needs = Mapping[str, Sequence[tuple[Ready, Want]]]  # by the machine's name


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
    """Deliver to every machine the artifacts that it wants. One that wants none is not touched.

    Args:
        wants: machine name -> artifacts.
        finished: called with each machine that has all its artifacts, while others still wait.

    Raises:
        PhaseError: with every machine that did not get all; verified artifacts are in place.
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
    """One group for each architecture; its seed is the machine that needs most bytes."""
    by_arch: dict[str, list[Machine]] = defaultdict(list)
    for machine in machines:
        if local := _local(needs[machine.name]):
            by_arch[local[0].arch].append(machine)

    def size(machine: Machine) -> int:
        return sum(size_of(ready) for ready in _local(needs[machine.name]))

    groups = []
    for members in by_arch.values():
        union = {ready.pin: ready for m in members for ready in _local(needs[m.name])}
        ordered = tuple(sorted(union.values(), key=size_of, reverse=True))
        groups.append(Group(max(members, key=size), tuple(members), ordered))
    return groups


def _local(items: Iterable[tuple[Ready, Want]]) -> tuple[Ready, ...]:
    return tuple(ready for ready, _ in items if ready.local)


def _round(
    engine: Engine,
    needs: Needs,
    groups: Sequence[Group],
    remote: Sequence[Machine],
    progress: Progress,
    finished: Callable[[Machine], None],
) -> list[Machine]:
    """Serve, push and take, all at once. Return the machines that cannot reach their seed."""
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
    return any(UNREACHABLE in operation.output for operation in result.operations)


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
            group.seed, f"bash -c {quote(RECEIVE)}", sources(), sent=sent, timeout=TIMEOUT
        )
        if code == 0:
            return None
        cause, hint = last_lines(stderr) or f"exit status {code}", ""
    except ClusterctlError as error:
        cause, hint = error.message, error.hint
    # Machines that wait for the rest would wait in vain.
    _stop(engine, group.seed)
    return Failure(group.seed.name, "send artifacts", cause, hint=hint)


def _packed(ready: Ready) -> Path | OSError:
    """Compress an artifact. Return an error instead of raising it: gevent would print it."""
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
    """Stop the service. If the seed does not answer within `REACH`, the service ends by itself."""
    with gevent.Timeout(REACH, False), suppress(UnreachableError):
        engine.shell(seed, f"systemctl --quiet stop {UNIT}")
