"""The probe's sections about installed files, binaries, units and certificates. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provision.model.observed import ObservedBinary, ObservedFile, ObservedUnit
from provision.model.sections import Sections, reading
from provision.observe.parse_record import Record
from provision.observe.script import TABLES

_KINDS = {
    "regular file": "file",
    "regular empty file": "file",
    "directory": "directory",
    "symbolic link": "link",
}


@dataclass(frozen=True)
class _Stat:
    kind: str
    mode: int
    owner: str
    group: str
    size: int
    identity: tuple[str, str, str, str]  # size, inode, mtime, ctime


def files(
    output: Sections, record: Record
) -> tuple[dict[str, ObservedFile], dict[str, ObservedBinary]]:
    """(path -> file, path -> binary). The record decides which paths are binaries."""
    stats = _stats(output)
    hashes = _hashes(output)
    binaries = _binaries(record, stats, hashes)
    found = {
        path: ObservedFile(
            path=path,
            kind=stat.kind,
            mode=stat.mode,
            owner=stat.owner,
            group=stat.group,
            size=stat.size,
            sha256=hashes.get(path, "") if stat.kind == "file" else "",
        )
        for path, stat in stats.items()
        if path not in binaries
    }
    return found, binaries


def _stats(output: Sections) -> dict[str, _Stat]:
    stats = {}
    with reading("stat"):
        for line in output.lines("stat"):
            kind, mode, owner, group, size, inode, mtime, ctime, path = line.split("\t")
            stats[path] = _Stat(
                kind=_KINDS.get(kind, "other"),
                mode=int(mode, 8),
                owner=owner,
                group=group,
                size=int(size),
                identity=(size, inode, mtime, ctime),
            )
    return stats


def _hashes(output: Sections) -> dict[str, str]:
    return {line[66:]: line[:64] for line in output.lines("sha256")}


def _binaries(
    record: Record, stats: Mapping[str, _Stat], hashes: Mapping[str, str]
) -> dict[str, ObservedBinary]:
    binaries = {}
    for path, pin, version, sha256, *identity in record.of("binary", 8):
        if stat := stats.get(path):
            # Recorded times may be whole seconds.
            whole = tuple(field.split(".")[0] for field in stat.identity)
            same = tuple(identity[:4]) in {stat.identity, whole}
            binaries[path] = ObservedBinary(
                path=path,
                pin=pin,
                version=version,
                intact=(stat.kind, stat.mode, stat.owner, stat.group)
                == ("file", 0o755, "root", "root")
                and (hashes[path] == sha256 if path in hashes else same),
            )
    return binaries


def loaded_units(output: Sections) -> list[dict[str, str]]:
    """For each unit, its properties in systemd: property -> value."""
    return [
        dict(line.split("=", 1) for line in block if "=" in line)
        for block in output.blocks("units")
    ]


def _lost_tables(output: Sections) -> dict[str, str]:
    """Unit -> its nftables table, if the table is gone. An unknown state does not count as gone."""
    if "tables" not in output:
        return {}
    gone = {*output.lines("asked-tables")} - {*output.lines("tables")}
    return {unit: table for unit, table in TABLES.items() if table in gone}


def units(
    output: Sections, record: Record, loaded: list[dict[str, str]]
) -> dict[str, ObservedUnit]:
    """Name -> unit, for the units in the record and the units of the query."""
    asked, lost = output.lines("asked"), _lost_tables(output)
    digests = dict.fromkeys(asked, "") | {name: digest for name, digest, *_ in record.of("unit", 2)}
    found = {}
    with reading("units"):
        for unit in loaded:
            for name in {unit.get("Id", ""), *unit.get("Names", "").split()} & digests.keys():
                found[name] = ObservedUnit(
                    name=name,
                    load=unit["LoadState"],
                    active=unit["ActiveState"],
                    sub=unit["SubState"],
                    enabled=unit["UnitFileState"],
                    needs_daemon_reload=unit["NeedDaemonReload"] == "yes",
                    restarts=int(unit.get("NRestarts") or 0),  # services only
                    started=int(unit.get("ActiveEnterTimestampMonotonic") or 0),
                    digest=digests[name],
                    lacks=lost.get(name, ""),
                )
    return found


def certificates(output: Sections) -> dict[str, str]:
    """Path -> PEM."""
    found: dict[str, str] = {}
    path = ""
    for line in output.lines("certificates"):
        if line.startswith("file "):
            path = line.removeprefix("file ")
        else:
            found[path] = found.get(path, "") + line + "\n"
    return found
