"""A machine's record, compared with the state that is wanted on the machine. Pure.

A record lists the things that each component has put on the machine. A thing that is no longer
wanted stays in the record until it is removed from the machine (`Removal`). So the record is
complete even if a run is killed, and `down` finds everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provision.desired.model import ComponentState
from provision.model import paths
from provision.model.cluster import Cluster
from provision.pki.trust import Trust

Line = tuple[str, ...]
Record = Mapping[str, tuple[Line, ...]]

HOST = "host"
KEEPER = "kube-apiserver"  # its record also has the generation of the trust
# The delivery of artifacts, the installation of packages and changed kernel settings have records
# too.
ARTIFACTS, PACKAGES, KERNEL = "artifacts", "packages", "kernel"
# Only `clusterctl node remove` removes a member or a node from the cluster. A change of roles does
# not.
HELD = frozenset({"etcd", "kubelet"})

_TEXTS = frozenset(
    {"cleanup", "cluster", "trust"}
)  # kinds of lines that name nothing on the machine


@dataclass(frozen=True)
class Removal:
    """The things of a component on a machine that are no longer wanted.

    Attributes:
        lines: lines of its record: things to remove, and programs that clean up.
        forget: lines that are only deleted from the record: another component has these things
            now, or they are never removed.
        whole: the component itself is no longer wanted there.
    """

    component: str
    lines: tuple[Line, ...]
    forget: tuple[Line, ...] = ()
    whole: bool = False

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(line[1] for line in self.lines if line[0] == "unit")

    @property
    def paths(self) -> tuple[str, ...]:
        kinds = {"file", "dir", "cert", "key", "leftover", "binary"}
        return tuple(line[1] for line in self.lines if line[0] in kinds)


def entries(state: ComponentState, cluster: Cluster, trust: Trust) -> tuple[Line, ...]:
    """Give the lines of a component's record, without fields known only after installation."""
    lines: list[Line] = []
    if state.name == HOST:
        lines.append(("cluster", cluster.name, trust.fingerprint))
    if state.name == KEEPER:
        lines.append(("trust", str(trust.generation), trust.digest))
    lines += [("user", user) for user in state.users]
    lines += [("dir", directory.path) for directory in state.directories]
    lines += [("file", file.path) for file in state.files]
    for leaf in state.leaves:
        lines += [("cert", leaf.cert_path), ("key", leaf.key_path)]
    lines += [("leftover", path) for path in state.leftovers]
    if state.cleanup:
        lines.append(("cleanup", state.cleanup))
    lines += [("unit", unit.name) for unit in state.units]
    return tuple(lines)


@dataclass(frozen=True)
class Wanted:
    """Everything that is wanted on a machine.

    Attributes:
        entries: component -> the lines that its record should have.
        names: the paths, units and users in these lines, and directories that no prune removes.
    """

    entries: Mapping[str, tuple[Line, ...]]
    names: frozenset[str]

    @staticmethod
    def of(states: Mapping[str, ComponentState], cluster: Cluster, trust: Trust) -> Wanted:
        named = {name: entries(state, cluster, trust) for name, state in states.items()}
        binaries = tuple(("binary", b.path) for s in states.values() for b in s.binaries)
        named[ARTIFACTS] = binaries
        names = {line[1] for lines in named.values() for line in lines if line[0] not in _TEXTS}
        return Wanted(named, frozenset({*names, paths.ETCD_DATA, paths.KUBELET_DATA}))

    def kept(self, component: str, record: Record) -> tuple[Line, ...]:
        """Give lines that stay in a component's record until the things they name are removed."""
        own = set(self.entries[component])
        return tuple(
            line
            for line in record.get(component, ())
            if _entry(line) not in own and line[0] not in _TEXTS and line[1] not in self.names
        )

    def lacking(self, component: str, record: Record) -> bool:
        """Whether a component's record must be written again, even if nothing else changes."""
        own = {*self.entries[component], *map(_entry, self.kept(component, record))}
        return own != {_entry(line) for line in record.get(component, ())}

    def removals(self, record: Record) -> tuple[Removal, ...]:
        """Give the things to remove, component by component.

        Empty for a machine that is a member or a node and should not be: `node remove` removes it.
        """
        if any(name in record and name not in self.entries for name in HELD):
            return ()
        found = [
            self._part(name, record) if name in self.entries else self._whole(name, lines)
            for name, lines in record.items()
            if name not in (PACKAGES, KERNEL)
        ]
        return tuple(removal for removal in found if removal.lines or removal.forget)

    def _whole(self, component: str, lines: tuple[Line, ...]) -> Removal:
        gone = tuple(line for line in lines if line[0] == "cleanup" or self._removable(line))
        forget = tuple(
            line
            for line in lines
            if line not in gone and (line[0] in _TEXTS or line[1] in self.names)
        )
        return Removal(component, gone, forget, whole=True)

    def _part(self, component: str, record: Record) -> Removal:
        kept = self.kept(component, record)
        if component == ARTIFACTS:
            # `down` removes the directories; the images are removed with their registry.
            without = "registry" not in self.entries
            forget = tuple(line for line in kept if line[0] == "images" and without)
            return Removal(component, tuple(x for x in kept if x[0] == "binary"), forget)
        return Removal(component, tuple(line for line in kept if self._removable(line)))

    def _removable(self, line: Line) -> bool:
        """Whether neither the path nor anything below it is wanted."""
        within = f"{line[1]}/"
        return (
            line[0] not in _TEXTS
            and line[1] not in self.names
            and not any(name.startswith(within) for name in self.names)
        )


def _entry(line: Line) -> Line:
    """Give the line without the fields that are known only after installation."""
    return line if line[0] in _TEXTS else line[:2]
