"""One command's view of a cluster: inventory, machines, connections, trust and cache."""

from __future__ import annotations

import base64
import io
import tarfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from provision import inventory, observe
from provision.apply.engine import Engine
from provision.artifacts.go import refuse
from provision.desired import catalog
from provision.desired.packages import PACKAGES
from provision.inventory import Draft
from provision.local import cache_of, changes, private_file
from provision.local.cache import Cache
from provision.local.operators import this_operator
from provision.local.progress import Progress
from provision.local.runlog import RunLog
from provision.machines import MachineSource
from provision.machines.locate import absent, locate
from provision.machines.sources import source_of
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.distribution import EPEL
from provision.model.errors import RefusedError, TrustError, UnreachableError
from provision.model.look import Look
from provision.observe import script
from provision.pki import requests, table
from provision.pki.trust import PATHS, Trust
from provision.pki.trust_files import read_trust
from provision.plan.external_authority import refusal, refuse_own_authority


@dataclass(frozen=True)
class Session:
    """What a command works with. `open_session` makes and ends it.

    Attributes:
        created: names of the machines that were made for this command.
        install: asks before packages are installed on the operator's computer; raises if the
            operator does not agree.
        began: when it was opened, by `time.monotonic`, before any machine was made.
    """

    draft: Draft
    source: MachineSource
    cluster: Cluster
    cache: Cache
    engine: Engine
    progress: Progress
    log: RunLog
    created: tuple[str, ...] = ()
    began: float = field(default_factory=time.monotonic)
    install: Callable[[Sequence[str]], None] = refuse

    @property
    def took(self) -> float:
        """Wall seconds since the command began. Phases overlap: this is not their sum."""
        return time.monotonic() - self.began

    def observe(
        self,
        names: Iterable[str] | None = None,
        *,
        reachability: bool = False,
        published: bool = False,
        deep: bool = False,
        gone: Mapping[str, str] = MappingProxyType({}),
    ) -> Look:
        """Look at the machines, one round trip each.

        Args:
            names: look at these machines only; None: at all.
            reachability: ask machines that are new whether they reach the others.
            published: see `provision.observe.script.query`.
            deep: hash every binary.
            gone: machine -> why it cannot answer. Such a machine is not asked.
        """
        wanted = None if names is None else frozenset(names)
        machines = [
            m
            for m in self.cluster.machines
            if (wanted is None or m.name in wanted) and m.name not in gone
        ]
        fetched = self.engine.fetch(
            lambda machine: probe(
                self.cluster,
                machine,
                reachability=reachability,
                published=published,
                deep=deep,
            ).program(),
            machines,
        )
        observed = {
            machine.name: (
                observe.parse.unreachable(machine.name, seen.error, seen.hint, off=seen.off)
                if (seen := fetched[machine.name]).error
                else observe.parse.parse(machine.name, seen.output, seen.sent_at, seen.received_at)
            )
            for machine in machines
        } | {name: observe.parse.unreachable(name, why, off=True) for name, why in gone.items()}
        return Look(self.cluster, observed)

    def trust(self, look: Look, *, keep: bool = True) -> Trust:
        """The cluster's keys: from the machines, else from the cache, else new ones.

        Args:
            keep: write new ones into the cache, before any machine gets them.

        Raises:
            TrustError: machines disagree, or the keys do not fit together.
            RefusedError: the authority is external and has signed nothing yet.
        """
        trust = self.known_trust(look)
        if trust is None:
            if self.cluster.certificates.external:
                raise refusal(self.cluster, "it has signed nothing yet")
            trust = Trust.create(self.cluster.name, datetime.now(UTC))
            if keep:
                trust = self.cache.first(trust)
        return trust

    def known_trust(self, look: Look) -> Trust | None:
        """The cluster's keys; None when neither the machines nor the cache have any.

        Raises:
            TrustError: machines disagree, or the keys do not fit together.
            RefusedError: the inventory says that the authority is external, and it is not.
        """
        trust = self._known_trust(look)
        if trust:
            refuse_own_authority(self.cluster, trust)
        return trust

    def _known_trust(self, look: Look) -> Trust | None:
        cached = self.cache.trust()
        fingerprint = look.fingerprint()
        if not fingerprint:
            return cached
        newest = max((o.trust for o in look.values() if o.trust), default=None)
        if cached is not None and fingerprint == cached.fingerprint:
            # Another operator may have replaced a key since. A newer trust that no machine has yet
            # is in the cache only.
            if newest is None or cached.generation > newest[0]:
                return cached
            if newest == (cached.generation, cached.digest):
                return cached
        trust = self._fetch_trust(look, fingerprint)
        self.cache.keep(trust)
        return trust

    def _fetch_trust(self, look: Look, fingerprint: str) -> Trust:
        reasons = []
        masters = [m for m in self.cluster.masters if m.name in look]
        # Masters with the newest trust come first. A run that was stopped may have left it half
        # written.
        for machine in sorted(masters, key=lambda m: look[m.name].trust or (0, ""), reverse=True):
            if look[machine.name].fingerprint != fingerprint:
                continue
            try:
                trust = self.read_trust(machine)
            except (TrustError, UnreachableError) as error:
                reasons.append(f"{machine.name}: {error.message}")
                continue
            if trust.fingerprint == fingerprint:
                self.progress.note(f"keys of {self.cluster.name} taken over from {machine.name}")
                return trust
            reasons.append(f"{machine.name}: its keys are not those of its record")
        message = f"no master could give the keys of {self.cluster.name}"
        raise TrustError(
            f"{message}: {'; '.join(reasons)}" if reasons else message,
            hint="one master that has /etc/kubernetes/pki is needed",
        )

    def read_trust(self, machine: Machine) -> Trust:
        """The keys as this master has them.

        Raises:
            UnreachableError: the master does not answer.
            TrustError: keys are missing, or they do not fit together.
        """
        _, out, _ = self.engine.shell(machine, _READ_TRUST, secret_output=True)
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(out))) as tar:
            files = {
                f"/{member.name}": content.read()
                for member in tar
                if (content := tar.extractfile(member)) is not None
            }
        return read_trust(files, datetime.now(UTC))


_TRUST_PATHS = " ".join(path.removeprefix("/") for path in PATHS)
# An authority's key may be elsewhere: tar must not fail without it.
_READ_TRUST = f"cd / && tar -cf - --ignore-failed-read {_TRUST_PATHS} 2>/dev/null | base64"


def probe(
    cluster: Cluster,
    machine: Machine,
    *,
    reachability: bool = False,
    published: bool = False,
    deep: bool = False,
) -> script.Query:
    """The probe of one machine: it asks for all that any cluster of clusterctl may have there."""
    asked = table.node_leaves(cluster, machine) if cluster.certificates.external else ()
    return script.query(
        cluster,
        machine,
        units=catalog.UNITS,
        packages=(*PACKAGES, *EPEL),
        certificates=tuple(requests.signed_path(leaf) for leaf in asked),
        files=tuple(requests.key_path(leaf) for leaf in asked),
        reachability=reachability,
        published=published,
        deep=deep,
    )


@contextmanager
def open_session(
    path: Path,
    progress: Progress,
    *,
    create: bool = False,
    names: Collection[str] | None = None,
    agree: Callable[[MachineSource, Draft], None] | None = None,
    install: Callable[[Sequence[str]], None] = refuse,
) -> Iterator[Session]:
    """Read the inventory, find the machines and get ready to connect.

    Args:
        create: make machines that are missing first.
        names: the machines that may be made, and must exist; None: all.
        agree: called before a machine is made; raises if the operator refuses.
        install: as in `Session`.

    Raises:
        InventoryError: the file is wrong.
        RefusedError: machines are missing and `create` is False.
        MachinesError: missing machines could not be made.
    """
    began = time.monotonic()
    draft = inventory.read(path)
    source = source_of(draft)
    found = source.missing(draft) if create else absent(source, draft)
    missing = tuple(name for name in found if names is None or name in names)
    if missing and not create:
        message = f"these machines do not exist yet: {', '.join(missing)}"
        raise RefusedError(
            message,
            hint=f"make them with {clusterctl('up', path)} or {clusterctl('machines', 'up', path)}",
        )
    if missing:
        if agree:
            agree(source, draft)
        with cache_of(draft).hold(this_operator(clusterctl("up", path))):
            changes.begin(f"which machines {draft.name} has")
            source.create(draft, progress, names)
    cluster, cache, hosts = locate(source, draft)
    private_file.sweep(cache.directory())
    log = RunLog.create(cluster.name)
    with Engine(cluster, hosts, log) as engine:
        yield Session(draft, source, cluster, cache, engine, progress, log, missing, began, install)
