"""A cluster as a value, and machines that carry out changes in memory and report like the probe.

As on a real machine, a report comes from the record and the disk: the probe does not look at a path
that the record does not name.
"""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path

from provision.apply.make_change import component_change
from provision.artifacts.images import IMAGES
from provision.artifacts.model import ArtifactSet, Ready
from provision.desired.addons import manifests
from provision.desired.catalog import artifacts_of
from provision.desired.components import node
from provision.model.cluster import Cluster, Machine, Role, Ssh
from provision.model.distribution import find
from provision.model.facts import Facts
from provision.model.observed import (
    ApiView,
    EtcdMember,
    EtcdView,
    HostReport,
    NodeView,
    Observed,
    ObservedBinary,
    ObservedFile,
    ObservedUnit,
)
from provision.model.settings.network import Api
from provision.pki import table
from provision.pki.authority import Authority
from provision.pki.leaf import issue
from provision.pki.table import KUBELET_CLIENT
from provision.pki.trust import Trust
from provision.plan.make import make_plan
from provision.plan.node_change import LABELS, TAINTS, node_change

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEBIAN = find("debian", (), "12")
LAB = Facts("amd64", DEBIAN, "eth0", "10.77.0.0/24", 2, True, False, "/etc/resolv.conf")
PLAIN = Facts("amd64", DEBIAN, "ens5", "10.77.0.0/24", 2, False, True, "/etc/resolv.conf")
RHEL = replace(
    PLAIN,
    distribution=find("rhel", ("fedora",), "9.6"),
    resolv_conf="/run/systemd/resolve/resolv.conf",
)


def machine(name, *roles, **values):
    number = int(name[1:]) + {"m": 10, "w": 20, "e": 30}[name[0]]
    address = f"10.77.0.{number}"
    return Machine(
        name=name,
        address=IPv4Address(address),
        roles=frozenset(roles),
        ssh=Ssh(hostname=address),
        **values,
    )


def master(name, **values):
    return machine(name, Role.MASTER, Role.ETCD, **values)


def worker(name, **values):
    return machine(name, Role.WORKER, **values)


def cluster(*machines, **settings):
    """A cluster; by default three masters and two workers, with a virtual address."""
    defaults = {"name": "demo", "api": Api(vip=IPv4Address("10.77.0.100"))}
    return Cluster(
        machines=machines or (master("m1"), master("m2"), master("m3"), worker("w1"), worker("w2")),
        inventory=Path("/inventories/demo.py"),
        **{**defaults, **settings},
    )


@cache
def trust():
    return Trust.create("demo", NOW)


@cache
def artifacts(of):
    """The artifacts of a cluster, made once for each."""
    names = (*artifacts_of(of, trust()), IMAGES)
    return ArtifactSet(
        "build",
        {
            (name, arch): Ready(
                name, "1.0", arch, hashlib.sha256(f"{name} {arch}".encode()).hexdigest()
            )
            for name in names
            for arch in ("amd64", "arm64")
        },
    )


def plan_of(of, observed, now=NOW):
    return make_plan(of, trust(), observed, artifacts(of), now)


@cache
def kubelet_client(machine):
    """The client certificate that a kubelet got when it joined, PEM."""
    return issue(table.kubelet_client(cluster(machine), machine), trust(), NOW).certificate.decode()


@dataclass
class Disk:
    """A machine in memory."""

    machine: Machine
    facts: Facts = LAB
    there: dict = field(default_factory=dict)  # path -> ObservedFile
    pems: dict = field(default_factory=dict)
    units: dict = field(default_factory=dict)  # name -> ObservedUnit
    records: dict = field(default_factory=dict)
    packages: set = field(default_factory=set)
    binaries: dict = field(default_factory=dict)
    images: set = field(default_factory=set)
    etcd_data: bool = False
    etcd_formed: bool = False
    registered: bool = False

    def carry_out(self, change, *, killed=False):
        """Apply a change in the order of `provision.apply.install`.

        Args:
            killed: stop after the files, before the units.
        """
        self.records[change.component] = change.record_before
        for directory in change.directories:
            self._put(directory.path, "directory", directory)
        for file in change.files:
            self._put(file.path, "file", file, file.content)
        for issued in change.issued:
            leaf = issued.leaf
            self._put(leaf.cert_path, "file", leaf, issued.certificate, 0o644)
            self._put(leaf.key_path, "file", leaf, issued.key, 0o600)
            self.pems[leaf.cert_path] = issued.certificate.decode()
        if killed:
            return
        for name in (*change.enable, *change.start, *change.restart, *change.reload):
            active = "inactive" if name in change.enable else "active"
            was = self.units.get(name)
            self.units[name] = ObservedUnit(
                name, "loaded", was.active if was and was.running else active, "", "enabled"
            )
        self.records[change.component] = change.record

    def remove(self, removals, *, killed=False):
        """Remove as `teardown.PRUNE` does.

        Args:
            killed: stop before the record is shortened.
        """
        for removal in removals:
            for name in removal.units:
                self.units.pop(name, None)
            for path in removal.paths:
                within = [p for p in self.there if p == path or p.startswith(f"{path}/")]
                for gone in within:
                    del self.there[gone]
                    self.pems.pop(gone, None)
                self.binaries.pop(path, None)
        if killed:
            return
        for removal in removals:
            gone = {"\t".join(line) for line in (*removal.lines, *removal.forget)}
            kept = [x for x in self.records[removal.component].splitlines() if x not in gone]
            self.records[removal.component] = "".join(f"{line}\n" for line in kept)
            if not kept:
                del self.records[removal.component]
            self.images = {pin for pin in self.images if f"images\t{pin}" not in gone}

    def deliver(self, binaries, pins, images=None):
        """Install binaries and images as the delivery does, and write its record."""
        for binary in binaries:
            pin = pins(binary.artifact)
            self.binaries[binary.path] = ObservedBinary(binary.path, pin, "1.0", intact=True)
        if images:
            self.images.add(images)
        lines = [f"binary\t{b.path}\t{b.pin}\t1.0" for b in self.binaries.values()]
        lines += [f"images\t{pin}" for pin in self.images]
        if lines:
            self.records["artifacts"] = "".join(f"{line}\n" for line in lines)

    def _put(self, path, kind, access, content=b"", mode=None):
        self.there[path] = ObservedFile(
            path,
            kind,
            access.mode if mode is None else mode,
            access.owner,
            access.group,
            len(content),
            hashlib.sha256(content).hexdigest() if kind == "file" else "",
        )

    def observed(self, api=None):
        lines = [
            line.split("\t") for record in self.records.values() for line in record.splitlines()
        ]

        def recorded(kind):
            return [fields for name, *fields in lines if name == kind]

        files = {}
        for kind in ("file", "dir", "cert"):
            files |= {path: self.there[path] for path, *_ in recorded(kind) if path in self.there}
        for path, sha256 in recorded("key"):
            if path in self.there:
                # The machine compares a key with its record. The probe prints only the result.
                same = self.there[path].sha256 == sha256
                files[path] = replace(self.there[path], sha256=sha256 if same else "")
        digests = dict(recorded("unit"))
        pems = {path: self.pems[path] for (path,) in recorded("cert") if path in self.pems}
        if self.registered:
            pems[KUBELET_CLIENT] = self.pems.get(KUBELET_CLIENT) or kubelet_client(self.machine)
        name, fingerprint = next(iter(recorded("cluster")), ("", ""))
        return Observed(
            machine=self.machine.name,
            facts=self.facts,
            cluster=name,
            fingerprint=fingerprint,
            record={
                name: tuple(tuple(line.split("\t")) for line in text.splitlines())
                for name, text in self.records.items()
            },
            files=files,
            binaries={
                path: self.binaries[path]
                for path, *_ in recorded("binary")
                if path in self.binaries
            },
            units={n: replace(u, digest=digests.get(n, "")) for n, u in self.units.items()},
            certificates=pems,
            packages=frozenset(self.packages),
            etcd_data=self.etcd_data,
            etcd_formed=self.etcd_formed,
            registered=self.registered,
            images=frozenset(self.images),
            api=api if self.machine.is_master else None,
        )


def disks(of, facts=LAB):
    return {m.name: Disk(m, facts) for m in of.machines}


def fit_host(one):
    """A new machine's report: nothing hinders a cluster."""
    return HostReport(
        hostname=one.name,
        machine_id=f"id of {one.name}",
        os_id="debian",
        os_version="12",
        os_name="Debian 12",
        kernel="6.1.0",
        systemd=252,
        cpus=2,
        memory=4096,
        disk_free=50_000,
        var_free=50_000,
        clock_offset=0.1,
        addresses=(str(one.address),),
    )


def look(of, machines):
    """The reports of all machines."""
    healthy = any(disk.etcd_formed for disk in machines.values())
    api = healthy_api(of) if healthy else None
    return {name: disk.observed(api) for name, disk in machines.items()}


def node_view(of, one):
    change = node_change(of, one, None)
    return NodeView(
        one.name,
        ready=True,
        labels=node.labels(of, one),
        annotations={LABELS: ",".join(change.ours[0]), TAINTS: ",".join(change.ours[1])},
        taints=tuple(map(str, node.taints(of, one))),
    )


def healthy_api(of):
    wanted = all_manifests(of)
    return ApiView(
        ready=True,
        nodes=tuple(node_view(of, m) for m in of.nodes),
        applied={m.name: m.sha256 for m in wanted},
        authority=trust().bundle(Authority.KUBERNETES).decode(),
        objects=tuple(live(thing) for m in wanted if not m.given for thing in m.objects),
        given=tuple(live(thing) for m in wanted if m.given for thing in m.objects),
    )


def all_manifests(of):
    return manifests(of, trust().bundle(Authority.KUBERNETES))


def live(thing):
    """An object as the API has it, and what its controllers have made of it."""
    if thing["kind"] != "Deployment":
        return thing
    count = thing["spec"]["replicas"]
    counts = ("replicas", "updatedReplicas", "readyReplicas")
    return {**thing, "status": dict.fromkeys(counts, count)}


def changes(of, plan, observed):
    """Machine -> changes of its components, with certificates issued now."""
    return {
        name: [
            component_change(
                component,
                tuple(issue(leaf.leaf, trust(), NOW) for leaf in component.leaves),
                observed[name],
                of,
                trust(),
            )
            for component in machine_plan.components.values()
        ]
        for name, machine_plan in plan.machines.items()
    }


def converge(of, machines):
    """Carry out the plan for these machines, as an `up` without errors does."""
    observed = look(of, machines)
    plan = plan_of(of, observed)
    ready = artifacts(of)
    for name, component_changes in changes(of, plan, observed).items():
        disk, wanted = machines[name], plan.machines[name]
        disk.packages |= set(wanted.packages)
        pins = {
            name: item.pin for (name, arch), item in ready.items.items() if arch == disk.facts.arch
        }
        disk.deliver(wanted.binaries, pins.__getitem__, pins[IMAGES] if wanted.images else None)
        for change in component_changes:
            disk.carry_out(change)
        disk.remove(wanted.remove)
        disk.etcd_data = disk.etcd_formed = disk.machine.has_etcd
        disk.registered = disk.machine.is_node
    return plan


@cache
def built(of):
    """The machines of a cluster after it is built. They are shared: copy before you change them."""
    machines = disks(of)
    converge(of, machines)
    return machines


@cache
def _looked(of):
    return look(of, built(of))


def converged(of=None):
    """A cluster, and the reports of its machines after it is built."""
    of = of or DEFAULT
    return of, dict(_looked(of))


DEFAULT = cluster()


def healthy_etcd(of):
    members = tuple(EtcdMember(f"{i:x}", m.name, ()) for i, m in enumerate(of.etcd_members, 1))
    return EtcdView(healthy=True, id="1", leader="1", members=members)


class Obedient:
    """An engine: machines run every program, and print nothing."""

    def shell(self, machine, program):
        return 0, "", ""
