"""The probe's output -> Observed. Pure, and never raises: what cannot be read is said so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
)
from typing import TypeVar

from pydantic import BaseModel, Field, RootModel, TypeAdapter

from provision.model import holder
from provision.model.facts import Facts
from provision.model.observed import (
    ApiView,
    EtcdMember,
    EtcdView,
    Foreign,
    HostReport,
    NodeView,
    Observed,
    ObservedBinary,
    ObservedFile,
    ObservedUnit,
    Port,
)
from provision.model.paths import NEW
from provision.observe.script import SIGNS, SUSPECTS, TABLES

M = TypeVar("M", bound=BaseModel)

_CAP_SYS_RESOURCE = 24  # capabilities(7)
_FAMILIES = {
    "debian": {"debian", "ubuntu"},
    "rhel": {"rhel", "fedora", "centos", "amzn"},
}
_SSH = ("ssh.service", "sshd.service")
_KINDS = {
    "regular file": "file",
    "regular empty file": "file",
    "directory": "directory",
    "symbolic link": "link",
}


def parse(machine: str, output: str, sent_at: float, received_at: float) -> Observed:
    """Read what the probe of a machine printed.

    Args:
        machine: its name.
        output: all of the probe's output.
        sent_at: the operator's clock when the probe was sent, seconds since 1970.
        received_at: the same when its output had arrived.
    """
    try:
        return _observed(machine, _Output.of(output), (sent_at + received_at) / 2)
    except _UnreadableError as error:
        return unreachable(machine, f"what the machine answered cannot be read: {error}")


def unreachable(machine: str, error: str, hint: str = "", *, off: bool = False) -> Observed:
    """Make the Observed of a machine of which nothing is known, saying why and what to do."""
    return Observed(machine=machine, error=error, hint=hint, off=off)


class _UnreadableError(Exception):
    """Names the section that is missing or not as it should be."""


@contextmanager
def _reading(section: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, OverflowError) as error:
        raise _UnreadableError(f"section {section!r}: {error}") from error


@dataclass(frozen=True)
class _Output:
    """The sections of the output: name -> lines."""

    sections: Mapping[str, list[str]]

    @staticmethod
    def of(output: str) -> _Output:
        sections: dict[str, list[str]] = {}
        lines: list[str] = []  # what is printed before the first section is not ours
        for line in output.split("\n"):
            if line.startswith("@@ "):
                lines = sections.setdefault(line.removeprefix("@@ ").strip(), [])
            else:
                lines.append(line.rstrip("\r"))
        return _Output(sections)

    def __contains__(self, section: str) -> bool:
        return section in self.sections

    def lines(self, section: str) -> list[str]:
        """Give the lines that are not empty; none if there is no such section."""
        return [line for line in self.sections.get(section, ()) if line.strip()]

    def blocks(self, section: str) -> list[list[str]]:
        """Give the lines, as groups that empty lines separate."""
        text = "\n".join(self.sections.get(section, ()))
        return [block.split("\n") for block in re.split(r"\n\s*\n", text.strip("\n")) if block]

    def required(self, section: str) -> list[str]:
        lines = self.lines(section)
        if not lines:
            raise _UnreadableError(f"section {section!r} is missing")
        return lines

    def values(self, section: str) -> dict[str, str]:
        """Read lines `KEY=VALUE`."""
        return dict(line.split("=", 1) for line in self.required(section) if "=" in line)


@dataclass(frozen=True)
class _Record:
    """A machine's record (`provision.model.paths`): the fields of each line, by kind."""

    lines: tuple[tuple[str, ...], ...]

    def of(self, kind: str, fields: int) -> list[tuple[str, ...]]:
        """Give the lines of a kind, without it; shorter ones are left out."""
        return [line[1:] for line in self.lines if line[0] == kind and len(line) > fields]

    def components(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Give the lines of each component."""
        lines: dict[str, list[tuple[str, ...]]] = {}
        component = ""
        for line in self.lines:
            if line[0] == "component":
                component = line[1]
            # A killed run may have left the beginning of another record beside it.
            elif len(line) > 1 and not component.endswith(NEW):
                lines.setdefault(component, []).append(line)
        return {name: tuple(found) for name, found in lines.items()}


def _observed(machine: str, output: _Output, operator_clock: float) -> Observed:
    output.required("begin")
    output.required("end")
    with _reading("facts"):
        host = output.values("facts")
        if host["uid"] != "0":
            return unreachable(
                machine,
                f"the probe ran as user {host['uid']}, not as root",
                'set "_sudo": True in the inventory, or log in as root',
            )
    record = _Record(tuple(tuple(line.split("\t")) for line in output.lines("record")))
    cluster, fingerprint = next(iter(record.of("cluster", 2)), ("", ""))[:2]
    stats = _stats(output)
    hashes = _hashes(output)
    binaries = _binaries(record, stats, hashes)
    loaded = _loaded_units(output)
    return Observed(
        machine=machine,
        facts=_facts(output, host),
        host=_host(output, host, record, loaded, operator_clock),
        cluster=cluster,
        fingerprint=fingerprint,
        record=record.components(),
        trust=_trust(record),
        files={
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
        },
        binaries=binaries,
        units=_units(record, output.lines("asked"), loaded, _lost_tables(output)),
        certificates=_certificates(output),
        packages=frozenset(
            line.removeprefix("installed ")
            for line in output.lines("packages")
            if line.startswith("installed ")
        ),
        etcd_data="etcd_data" in host,
        etcd_formed="etcd_formed" in host,
        etcd_joining="etcd_joining" in host,
        restoring=host.get("restoring", ""),
        registered="registered" in host,
        holder=holder.parse("\n".join(output.lines("lock"))),
        images=frozenset(pin for pin, *_ in record.of("images", 1)),
        etcd=_etcd(output),
        api=_api(output),
    )


def _trust(record: _Record) -> tuple[int, str] | None:
    for generation, digest, *_ in record.of("trust", 2):
        if generation.isdecimal():
            return int(generation), digest
    return None


# The machine itself


def _facts(output: _Output, host: Mapping[str, str]) -> Facts:
    address = "".join(output.lines("address"))
    with _reading("facts"):
        interface, network = next(
            (
                (link, str(own.network))
                for link, own in _addresses(output)
                if str(own.ip) == address
            ),
            ("", ""),
        )
        release = output.values("os-release")
        ids = {release.get("ID", "").strip("\"'"), *release.get("ID_LIKE", "").strip("\"'").split()}
        return Facts(
            arch={"x86_64": "amd64", "aarch64": "arm64"}.get(host["arch"], host["arch"]),
            os_family=next((name for name, members in _FAMILIES.items() if ids & members), ""),
            interface=interface,
            network=network,
            cgroup_version=int(host["cgroup"]),
            container=host.get("container", "none") != "none",
            may_raise_limits=bool(int(host["capabilities"], 16) >> _CAP_SYS_RESOURCE & 1),
            resolv_conf=host["resolv_conf"],
            ssh_ports=tuple(sorted({p.port for p in _ports(output) if p.unit in _SSH})),
        )


def _host(
    output: _Output,
    host: Mapping[str, str],
    record: _Record,
    loaded: list[dict[str, str]],
    operator_clock: float,
) -> HostReport:
    release = {key: value.strip("\"'") for key, value in output.values("os-release").items()}
    with _reading("begin"):
        began, ended = (float(output.required(name)[0]) for name in ("begin", "end"))
    with _reading("disk"):
        # Filesystem, blocks, used, available, capacity, mount point; header first.
        disk_free, var_free = (int(line.split()[-3]) for line in output.required("disk")[1:3])
    with _reading("facts"):
        return HostReport(
            hostname=host["hostname"],
            machine_id=host.get("machine_id", ""),
            os_id=release.get("ID", ""),
            os_version=release.get("VERSION_ID", ""),
            os_name=release.get("PRETTY_NAME", release.get("ID", "")),
            kernel=host["kernel"],
            systemd=_systemd(output) if host["init"] == "systemd" else 0,
            cpus=int(host["cpus"]),
            memory=int(host["memory"]) // 1024,
            disk_free=disk_free,
            var_free=var_free,
            clock_offset=(began + ended) / 2 - operator_clock,
            addresses=tuple(str(own.ip) for _, own in _addresses(output)),
            routes=_routes(output, ours=bool(record.lines)),
            swap=tuple(line.split()[0] for line in output.lines("swaps")[1:]),
            ports=tuple(_ports(output)),
            reaches=_reaches(output),
            vip_answers="answers" in output.lines("virtual-address"),
            foreign=_foreign(output, record, loaded),
            missing=_missing(output),
            firewalls=tuple(output.lines("firewalls")),
            forbidden=_forbidden(output),
        )


def _addresses(output: _Output) -> list[tuple[str, IPv4Interface]]:
    """Read (interface, IPv4 address), the loopback's aside."""
    with _reading("addresses"):
        fields = [line.split() for line in output.required("addresses")]
        return [
            (link, IPv4Interface(address)) for _, link, _, address, *_ in fields if link != "lo"
        ]


def _routes(output: _Output, *, ours: bool) -> tuple[str, ...]:
    """Read the networks with a route; those of the pods, if the machine is ours, aside."""
    networks = []
    for line in output.lines("routes"):
        words = line.split()
        if ours and ("cni0" in words or "bird" in words):
            continue
        first = words[1] if words[0].isalpha() and len(words) > 1 else words[0]
        # `default`, and the `nexthop` lines of a route over several ways, are no networks.
        with suppress(ValueError):
            networks.append(str(IPv4Network(first)))
    return tuple(networks)


def _systemd(output: _Output) -> int:
    found = re.match(r"systemd (\d{1,9})\b", "".join(output.lines("systemd")[:1]))
    return int(found[1]) if found else 0


def _reaches(output: _Output) -> dict[str, bool]:
    reached = set(output.lines("reaches"))
    peers = [line.split()[0] for line in output.lines("peers")]
    return {address: address in reached for address in peers}


def _foreign(output: _Output, record: _Record, loaded: list[dict[str, str]]) -> tuple[Foreign, ...]:
    recorded = {name for name, *_ in record.of("unit", 1)}
    signs = [
        Foreign(SIGNS[path], path)
        for path in output.lines("foreign")
        # The kubelet of ours keeps its kubeconfig where kubeadm has it.
        if path in SIGNS and not (record.lines and SIGNS[path] == "kubeadm")
    ]
    running = [
        Foreign(SUSPECTS[name], f"{name} is running")
        for name in (unit.get("Id", "") for unit in loaded if unit.get("ActiveState") == "active")
        if name in SUSPECTS and name not in recorded
    ]
    return (*signs, *running)


def _missing(output: _Output) -> tuple[str, ...]:
    """Find features that the kernel neither has nor can load; unknown is not missing."""
    there = {line.split()[-1] for line in output.lines("filesystems")}
    there |= {*output.lines("features"), *output.lines("modules")}
    own_kernel = "modules" in output
    wanted = (
        ("overlay", "nf_tables", "nf_conntrack", "br_netfilter") if own_kernel else ("overlay",)
    )
    return tuple(feature for feature in wanted if feature not in there)


def _forbidden(output: _Output) -> tuple[str, ...]:
    """Find SELinux's booleans that are off while it enforces its policy."""
    said = {words[0]: words[1] for x in output.lines("selinux") if len(words := x.split()) > 1}
    if said.pop("enforce", "") != "1":
        return ()
    return tuple(name for name, now in said.items() if now == "0")


_SOCKET = re.compile(
    r"(?P<protocol>tcp|udp)\s+\S+\s+\d+\s+\d+\s+(?P<address>\S+):(?P<port>\d{1,5})\s+\S+"
    r'(?:\s+users:\(\("(?P<process>[^"]*)",pid=(?P<pid>\d+))?'
)


def _ports(output: _Output) -> Iterator[Port]:
    units = _units_of_processes(output)
    for line in output.lines("sockets"):
        if found := _SOCKET.match(line):
            yield Port(
                protocol=found["protocol"],
                address=found["address"].split("%")[0].strip("[]"),
                port=int(found["port"]),
                process=found["process"] or "",
                unit=units.get(found["pid"], ""),
            )
    with _reading("proc-net"):
        for table, listening in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
            for line in output.lines(f"proc-net {table}")[1:]:
                fields = line.split()
                if fields[3] == listening:
                    address, port = fields[1].split(":")
                    yield Port(table.removesuffix("6"), _hexadecimal(address), int(port, 16))


def _hexadecimal(address: str) -> str:
    """Read an address of /proc/net: 32-bit words, each in the byte order of the machine."""
    raw = bytes.fromhex(address)
    packed = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))


def _units_of_processes(output: _Output) -> dict[str, str]:
    units: dict[str, str] = {}
    pid = ""
    for line in output.lines("cgroups"):
        if found := re.match(r"==> /proc/(\d+)/cgroup <==", line):
            pid = found[1]
        elif found := re.match(r"\d+:(?:name=systemd)?:(.*)", line):
            names = [n for n in found[1].split("/") if n.endswith((".service", ".scope"))]
            if names:
                units.setdefault(pid, names[-1])
    return units


# What of ours is there


@dataclass(frozen=True)
class _Stat:
    kind: str
    mode: int
    owner: str
    group: str
    size: int
    identity: tuple[str, str, str, str]  # size, inode, mtime, ctime


def _stats(output: _Output) -> dict[str, _Stat]:
    stats = {}
    with _reading("stat"):
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


def _hashes(output: _Output) -> dict[str, str]:
    return {line[66:]: line[:64] for line in output.lines("sha256")}


def _binaries(
    record: _Record, stats: Mapping[str, _Stat], hashes: Mapping[str, str]
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


def _loaded_units(output: _Output) -> list[dict[str, str]]:
    """Read what systemd says of each unit: property -> value."""
    return [
        dict(line.split("=", 1) for line in block if "=" in line)
        for block in output.blocks("units")
    ]


def _lost_tables(output: _Output) -> dict[str, str]:
    """Find unit -> the table that it should have put there; unknown is not lost."""
    if "tables" not in output:
        return {}
    there = output.lines("tables")
    return {unit: table for unit, table in TABLES.items() if table not in there}


def _units(
    record: _Record,
    asked: list[str],
    loaded: list[dict[str, str]],
    lost: Mapping[str, str],
) -> dict[str, ObservedUnit]:
    digests = dict.fromkeys(asked, "") | {name: digest for name, digest, *_ in record.of("unit", 2)}
    units = {}
    with _reading("units"):
        for unit in loaded:
            for name in {unit.get("Id", ""), *unit.get("Names", "").split()} & digests.keys():
                units[name] = ObservedUnit(
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
    return units


def _certificates(output: _Output) -> dict[str, str]:
    certificates: dict[str, str] = {}
    path = ""
    for line in output.lines("certificates"):
        if line.startswith("file "):
            path = line.removeprefix("file ")
        else:
            certificates[path] = certificates.get(path, "") + line + "\n"
    return certificates


# etcd


class _Member(BaseModel):
    id: int = Field(alias="ID", ge=0)
    name: str = ""
    peer_urls: tuple[str, ...] = Field(default=(), alias="peerURLs")
    learner: bool = Field(default=False, alias="isLearner")


class _Members(BaseModel):
    members: tuple[_Member, ...]


class _Header(BaseModel):
    member_id: int = Field(ge=0)
    revision: int = 0


class _Status(BaseModel):
    header: _Header
    version: str = ""
    size: int = Field(default=0, alias="dbSize")
    leader: int = Field(default=0, ge=0)
    errors: tuple[str, ...] = ()


class _Endpoint(BaseModel):
    status: _Status = Field(alias="Status")


class _Endpoints(RootModel[tuple[_Endpoint]]):
    """Only one is asked."""


def etcd_members(text: str) -> tuple[EtcdMember, ...]:
    """Read what `etcdctl member list -w json` prints.

    Raises:
        ValueError: it is something else.
    """
    return _listed(_Members.model_validate_json(text))


def _listed(members: _Members | None) -> tuple[EtcdMember, ...]:
    return tuple(
        EtcdMember(id=f"{m.id:x}", name=m.name, peer_urls=m.peer_urls, learner=m.learner)
        for m in (members.members if members else ())
    )


def _etcd(output: _Output) -> EtcdView | None:
    if "etcd-status" not in output:
        return None
    endpoints, silent = _answer(_Endpoints, output.lines("etcd-status"))
    if endpoints is None:
        return EtcdView(healthy=False, error=silent)
    status = endpoints.root[0].status
    members, problem = _answer(_Members, output.lines("etcd-members"))
    healthy = members is not None
    if members is None:
        members, _ = _answer(_Members, output.lines("etcd-remembered"))
    return EtcdView(
        healthy=healthy,
        id=f"{status.header.member_id:x}",
        leader=f"{status.leader:x}" if status.leader else "",
        version=status.version,
        db_size=status.size,
        revision=status.header.revision,
        members=_listed(members),
        error="; ".join(filter(None, (problem, *status.errors))),
    )


def _answer(model: type[M], lines: list[str]) -> tuple[M | None, str]:
    """Find the line that is the answer; if there is none, the last one: what went wrong."""
    for line in lines:
        try:
            return model.model_validate_json(line), ""
        except ValueError:
            continue
    reasons = [line.strip() for line in lines if line != "null"]  # etcdctl's way to say nothing
    return None, reasons[-1] if reasons else "no answer"


# The API


class _Taint(BaseModel):
    key: str
    value: str = ""
    effect: str = ""


class _NodeSpec(BaseModel):
    pod_cidr: str = Field(default="", alias="podCIDR")
    taints: tuple[_Taint, ...] = ()
    unschedulable: bool = False


class _Typed(BaseModel):
    type: str
    address: str = ""
    status: str = ""


class _Version(BaseModel):
    git_version: str = Field(alias="gitVersion")


_STRINGS = TypeAdapter(dict[str, str])
_TYPED = TypeAdapter(tuple[_Typed, ...])


def _api(output: _Output) -> ApiView | None:
    if "api-ready" not in output:
        return None
    nodes: list[NodeView] = []
    applied: dict[str, str] = {}
    deployments: dict[str, tuple[int, int]] = {}
    problems = (
        [] if (answer := output.lines("api-ready")) == ["ok"] else answer[-1:] or ["no answer"]
    )
    if "api-objects" not in output:
        raise _UnreadableError("section 'api-objects' is missing")
    # A cluster that was born a moment ago has none.
    for line in output.lines("api-objects"):
        kind, *fields = line.split("\t")
        with _reading("api-objects"):
            if kind == "node" and len(fields) == 7:
                nodes.append(_node(*fields))
            elif kind == "deployment" and len(fields) == 3:
                deployments[fields[0]] = (int(fields[1] or 0), int(fields[2] or 0))
            elif kind == "applied" and len(fields) == 1:
                applied |= _STRINGS.validate_json(fields[0] or "{}")
            elif not re.match(r"[EWI]\d{4} ", kind):  # kubectl's log, not its answer
                problems.append(line)
    return ApiView(
        ready=not problems,
        version=_version("\n".join(output.lines("api-version"))),
        nodes=tuple(nodes),
        applied=applied,
        deployments=deployments,
        error="; ".join(problems),
    )


def _version(answer: str) -> str:
    try:
        return _Version.model_validate_json(answer).git_version.removeprefix("v")
    except ValueError:
        return ""  # why, the other requests say


def _node(
    name: str,
    labels: str,
    spec: str,
    addresses: str,
    conditions: str,
    kubelet: str,
    annotations: str,
) -> NodeView:
    states = {c.type: c.status for c in _TYPED.validate_json(conditions or "[]")}
    declared = _NodeSpec.model_validate_json(spec or "{}")
    return NodeView(
        name=name,
        ready=states.get("Ready") == "True",
        address=next(
            (a.address for a in _TYPED.validate_json(addresses or "[]") if a.type == "InternalIP"),
            "",
        ),
        kubelet=kubelet,
        pod_cidr=declared.pod_cidr,
        conditions=states,
        labels=_STRINGS.validate_json(labels or "{}"),
        annotations=_STRINGS.validate_json(annotations or "{}"),
        taints=tuple(
            f"{t.key}={t.value}:{t.effect}" if t.value else f"{t.key}:{t.effect}"
            for t in declared.taints
        ),
        unschedulable=declared.unschedulable,
    )
