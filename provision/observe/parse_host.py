"""The probe's sections about the machine itself -> Facts, HostReport. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address

from provision.model import distribution
from provision.model.facts import Facts
from provision.model.observed import Foreign, HostReport, Place, Port
from provision.model.packet_filter import Chain, Command
from provision.model.sections import Sections, reading
from provision.observe import parse_rules
from provision.observe.parse_record import Record
from provision.observe.script import SIGNS, SUSPECTS, TABLES

_CAP_SYS_RESOURCE = 24  # capabilities(7)
_SSH = ("ssh.service", "sshd.service")


def facts(output: Sections, host: Mapping[str, str]) -> Facts:
    address = "".join(output.lines("address"))
    with reading("facts"):
        interface, network = next(
            (
                (link, str(own.network))
                for link, own in _addresses(output)
                if str(own.ip) == address
            ),
            ("", ""),
        )
        release = _release(output)
        return Facts(
            arch={"x86_64": "amd64", "aarch64": "arm64"}.get(host["arch"], host["arch"]),
            distribution=distribution.find(
                release.get("ID", ""),
                tuple(release.get("ID_LIKE", "").split()),
                release.get("VERSION_ID", ""),
            ),
            interface=interface,
            network=network,
            cgroup_version=int(host["cgroup"]),
            container=host.get("container", "none") != "none",
            may_raise_limits=bool(int(host["capabilities"], 16) >> _CAP_SYS_RESOURCE & 1),
            resolv_conf=host["resolv_conf"],
            ssh_ports=tuple(sorted({p.port for p in _ports(output) if p.unit in _SSH})),
        )


def _release(output: Sections) -> dict[str, str]:
    values = output.values("os-release", required=True)
    return {key: value.strip("\"'") for key, value in values.items()}


def report(
    output: Sections,
    host: Mapping[str, str],
    record: Record,
    loaded: list[dict[str, str]],
    operator_clock: float,
) -> HostReport:
    release = _release(output)
    with reading("begin"):
        began, ended = (float(output.lines(name, required=True)[0]) for name in ("begin", "end"))
    with reading("disk"):
        # Columns: filesystem, blocks, used, available, capacity, mount point. Line 0 is a header.
        disk_free, var_free = (
            int(line.split()[-3]) for line in output.lines("disk", required=True)[1:3]
        )
    # A container has the kernel of its host, and modules of its own, if any.
    outdated = "modules-removed" in output and host.get("container", "none") == "none"
    with reading("facts"):
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
            routes=_routes(output, in_cluster=bool(record.lines)),
            swap=tuple(line.split()[0] for line in output.lines("swaps")[1:]),
            ports=tuple(_ports(output)),
            reaches=_reaches(output),
            downloads=_downloads(output),
            vip_answers="answers" in output.lines("virtual-address"),
            foreign=_foreign(output, record, loaded),
            missing=_missing(output, outdated=outdated),
            outdated=outdated,
            firewalls=tuple(output.lines("firewalls")),
            forbidden=_forbidden(output),
            rules=_rules(output),
            resolver=host.get("resolver", ""),
            places=_places(output),
        )


def _addresses(output: Sections) -> list[tuple[str, IPv4Interface]]:
    """(interface, IPv4 address) of all interfaces except the loopback."""
    with reading("addresses"):
        fields = [line.split() for line in output.lines("addresses", required=True)]
        return [
            (link, IPv4Interface(address)) for _, link, _, address, *_ in fields if link != "lo"
        ]


def _routes(output: Sections, *, in_cluster: bool) -> tuple[str, ...]:
    """The networks that have a route. If the machine is in a cluster: without routes of pods."""
    networks = []
    for line in output.lines("routes"):
        words = line.split()
        if in_cluster and ("cni0" in words or "bird" in words):
            continue
        first = words[1] if words[0].isalpha() and len(words) > 1 else words[0]
        # `default`, and the `nexthop` lines of a multipath route, name no network.
        with suppress(ValueError):
            networks.append(str(IPv4Network(first)))
    return tuple(networks)


def _systemd(output: Sections) -> int:
    found = re.match(r"systemd (\d{1,9})\b", "".join(output.lines("systemd")[:1]))
    return int(found[1]) if found else 0


def _reaches(output: Sections) -> dict[str, bool]:
    reached = set(output.lines("reaches"))
    peers = [line.split()[0] for line in output.lines("peers")]
    return {address: address in reached for address in peers}


def _downloads(output: Sections) -> dict[str, bool]:
    answered = set(output.lines("download-answers"))
    names = [line.split()[0] for line in output.lines("downloads")]
    return {name: name in answered for name in names}


def _foreign(output: Sections, record: Record, loaded: list[dict[str, str]]) -> tuple[Foreign, ...]:
    recorded = {name for name, *_ in record.of("unit", 1)}
    signs = [
        Foreign(SIGNS[path], path)
        for path in output.lines("foreign")
        # The kubelet that clusterctl installs has its kubeconfig at the same path as kubeadm's.
        if path in SIGNS and not (record.lines and SIGNS[path] == "kubeadm")
    ]
    running = [
        Foreign(SUSPECTS[name], f"{name} is running")
        for name in (unit.get("Id", "") for unit in loaded if unit.get("ActiveState") == "active")
        if name in SUSPECTS and name not in recorded
    ]
    return (*signs, *running)


def _missing(output: Sections, *, outdated: bool) -> tuple[str, ...]:
    """Features that the kernel neither has nor can load. An unknown feature is not missing."""
    there = {line.split()[-1] for line in output.lines("filesystems")}
    there |= {*output.lines("features"), *output.lines("modules")}
    wanted = ["overlay"]
    # Options of a kernel, in capitals, are no modules: only nft tells whether they are there.
    rules = output.lines("rules")
    if outdated or "modules" in output:
        wanted += ["nf_tables", "nf_conntrack", "br_netfilter", *(x for x in rules if x.islower())]
    if "refused-rules" in output:
        refused = output.lines("refused-rules")
        taken = {*rules} - {*refused}
        there = (there - {*refused}) | taken | ({"nf_tables"} if taken else set())
        wanted += refused
    return tuple(dict.fromkeys(feature for feature in wanted if feature not in there))


def _forbidden(output: Sections) -> tuple[str, ...]:
    """SELinux booleans that are off while SELinux enforces its policy."""
    said = {words[0]: words[1] for x in output.lines("selinux") if len(words := x.split()) > 1}
    if said.pop("enforce", "") != "1":
        return ()
    return tuple(name for name, now in said.items() if now == "0")


def _rules(output: Sections) -> tuple[Chain, ...]:
    through_nft = output.lines("iptables")
    # iptables keeps its table in nftables, and nft shows it a second time.
    skip = {*TABLES.values(), *(("ip filter",) if through_nft else ())}
    return (
        *parse_rules.iptables(through_nft, Command.IPTABLES),
        *parse_rules.iptables(output.lines("iptables-legacy"), Command.LEGACY),
        *parse_rules.nft(output.lines("ruleset"), frozenset(skip)),
    )


# The last four columns of `df -P`: used, available, capacity, mount point. Names before and after
# them may have blanks. A file system without a limit of inodes has `-`.
_DF = re.compile(r"\s(?:\d+|-)\s+(?P<free>\d+|-)\s+(?P<used>\d+%|-)\s+(?P<mount>/.*)$")


def _places(output: Sections) -> tuple[Place, ...]:
    directories = output.lines("directories")
    space, inodes = (
        dict(zip(directories, map(_DF.search, output.lines(name)[1:]), strict=False))
        for name in ("space", "inodes")
    )
    tried = [line.split("\t") for line in output.lines("tried")]
    unwritable = {words[1]: words[2] for words in tried if words[0] == "write"}
    idle = {words[1] for words in tried if words[0] == "run"}
    places = []
    with reading("places"):
        for line in output.lines("places"):
            path, there = line.split("\t")
            if there not in directories:
                places.append(Place(path, there, unwritable="Not a directory"))
            elif (found := space.get(there)) and found["free"] != "-":
                left = inodes.get(there)
                places.append(
                    Place(
                        path,
                        there,
                        found["mount"],
                        int(found["free"]),
                        int(left["free"])
                        if left and "-" not in {left["free"], left["used"]}
                        else None,
                        unwritable.get(there, ""),
                        there not in idle,
                    )
                )
    return tuple(places)


_SOCKET = re.compile(
    r"(?P<protocol>tcp|udp)\s+\S+\s+\d+\s+\d+\s+(?P<address>\S+):(?P<port>\d{1,5})\s+\S+"
    r'(?:\s+users:\(\("(?P<process>[^"]*)",pid=(?P<pid>\d+))?'
)


def _ports(output: Sections) -> Iterator[Port]:
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
    with reading("proc-net"):
        for table, listening in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
            for line in output.lines(f"proc-net {table}")[1:]:
                fields = line.split()
                if fields[3] == listening:
                    address, port = fields[1].split(":")
                    yield Port(table.removesuffix("6"), _hexadecimal(address), int(port, 16))


def _hexadecimal(address: str) -> str:
    """An address in /proc/net: 32-bit words, each in the byte order of the machine."""
    raw = bytes.fromhex(address)
    packed = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))


def _units_of_processes(output: Sections) -> dict[str, str]:
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
