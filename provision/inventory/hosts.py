"""Groups of an inventory file -> machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from provision.inventory import rules
from provision.inventory.draft import GROUPS, HostData, HostEntry
from provision.inventory.files import absolute, is_file, mode_open_to_others
from provision.inventory.wording import show, validate
from provision.model.cluster import Role, Taint
from provision.model.commands import shell
from provision.model.errors import Finding
from provision.model.source import Source

_FILES = ("ssh_key", "ssh_config_file", "ssh_known_hosts_file")
_ALIASES = {"sudo": "_sudo", "sudo_password": "_sudo_password"}  # pragma: allowlist secret
# Neither may be taken for an option of ssh.
_SSH_NAME = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%@-]*")


@dataclass
class _Group:
    """A group of the file: its own data, and each host's."""

    name: str
    data: HostData = field(default_factory=HostData)
    hosts: dict[str, HostData] = field(default_factory=dict)


def hosts(
    raw: Mapping[str, object], folder: Path, source: Source
) -> tuple[tuple[HostEntry, ...], list[Finding]]:
    """Make the machines of the groups; a name in several groups is one machine.

    A machine's own data replace those of its groups, and those of a later group replace those of
    an earlier one, as in pyinfra; labels and taints add up.

    Args:
        raw: groups in the file's order.
        folder: where relative paths start.
        source: of the machines; it decides which data the inventory may have.
    """
    findings: list[Finding] = []
    groups = [_group(name, value, folder, source, findings) for name, value in raw.items()]
    if "masters" not in raw:
        findings.append(Finding("masters", "is missing", 'write at least one: masters = ["m1"]'))
    by_role = sorted(groups, key=lambda group: list(GROUPS).index(group.name))
    names = dict.fromkeys(name for group in by_role for name in group.hosts)
    stacked = "etcd" not in raw
    return tuple(_entry(name, groups, stacked=stacked, source=source) for name in names), findings


def _group(
    name: str, value: object, folder: Path, source: Source, findings: list[Finding]
) -> _Group:
    group = _Group(name)
    items: object = value
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], list | tuple):
        items, data = value
        group.data = _data(data, name, folder, source, findings)
    if not isinstance(items, list):
        hint = f'write {name} = ["m1", ("m2", {{...}})], or {name} = ([...], {{...}})'
        findings.append(Finding(name, f"{show(value)} is not a group", hint))
        return group
    if not items:
        hint = "write at least one" if name == "masters" else "leave the group out"
        findings.append(Finding(name, "has no machines", hint))
    for item in items:
        if isinstance(item, tuple) and len(item) == 2:
            host, data = item
        else:
            host, data = item, {}
        if not isinstance(host, str):
            hint = 'write "m1", or ("m1", {"ssh_hostname": "192.0.2.11"})'
            findings.append(Finding(name, f"{show(item)} is not a machine", hint))
        elif finding := _bad_name(name, host, group):
            findings.append(finding)
        else:
            where = f"{name}.{host}"
            group.hosts[host] = _data(data, where, folder, source, findings)
            if not source.chooses_addresses:
                findings += _own_address(where, host, group)
    return group


def _bad_name(group: str, host: str, seen: _Group) -> Finding | None:
    if host in seen.hosts:
        return Finding(
            group, f"{show(host)} is in the group twice", "write each machine once in a group"
        )
    if rules.is_address(host):
        hint = f'write the hostname and the address: ("m1", {{"ssh_hostname": {host!r}}})'
        return Finding(group, f"{show(host)} is an address, not a hostname", hint)
    if not rules.is_hostname(host):
        hint = "a hostname has lower-case letters, digits, '-' and '.', 63 characters at most"
        return Finding(group, f"{show(host)} is not a hostname", hint)
    if len(host) > rules.NODE_NAME:
        hint = (
            f"use {rules.NODE_NAME} at most: a node's certificate has the name system:node:NAME, "
            "and X.509 allows 64 characters"
        )
        return Finding(group, f"{show(host)} has {len(host)} characters", hint)
    return None


def _own_address(where: str, host: str, group: _Group) -> Iterator[Finding]:
    data = group.hosts[host]
    address = _address(data.model_dump(exclude_unset=True))
    if address and not rules.is_usable(address):
        given = "address" if data.address else "ssh_hostname"
        yield Finding(
            f"{where}.{given}",
            f"{show(str(address))} cannot be reached by the other machines",
            "set `address` to the machine's address on the machines' network",
        )


def _data(
    raw: object, where: str, folder: Path, source: Source, findings: list[Finding]
) -> HostData:
    """Check the data of a machine or a group; paths become absolute."""
    if not isinstance(raw, dict):
        hint = 'write a dict such as {"ssh_user": "admin", "_sudo": True}'
        findings.append(Finding(where, f"its data are {show(raw)}, not a dict", hint))
        return HostData()
    named = {_ALIASES.get(str(key), str(key)): value for key, value in raw.items()}
    data, problems, _ = validate(HostData, named, where, {})
    findings += problems
    given = data.model_dump(exclude_unset=True)
    if source.host_fields is not None:
        hint = f"leave it out; the inventory may set {', '.join(sorted(source.host_fields))}"
        for key in sorted(given.keys() - source.host_fields):
            findings.append(Finding(f"{where}.{key}", f"is not for {source.machines}", hint))
    update = {key: absolute(given[key], folder) for key in _FILES if given.get(key)}
    data = data.model_copy(update=update)
    findings += _check(data, where)
    return data


def _check(data: HostData, where: str) -> Iterator[Finding]:
    yield from rules.labels(data.labels, f"{where}.labels")
    for text in data.taints:
        yield from rules.taint(text, f"{where}.taints")[1]
    for key in ("ssh_hostname", "ssh_user"):
        name = getattr(data, key)
        if name is not None and not _SSH_NAME.fullmatch(name):
            hint = "write letters, digits and _.:%@-, and begin with a letter, a digit, '_' or ':'"
            yield Finding(f"{where}.{key}", f"{show(name)} is not a name", hint)
    if data.ssh_host_key is not None and not rules.is_host_key(data.ssh_host_key):
        hint = "write TYPE and KEY as in the machine's /etc/ssh/ssh_host_ed25519_key.pub"
        yield Finding(f"{where}.ssh_host_key", "is not a public host key", hint)
    for key in _FILES:
        path = getattr(data, key)
        if path is not None and not is_file(path):
            hint = "relative paths start at the directory of the inventory file"
            yield Finding(f"{where}.{key}", f"there is no file {show(path)}", hint)
    if data.ssh_key and is_file(data.ssh_key) and (mode := mode_open_to_others(data.ssh_key)):
        what = f"{show(data.ssh_key)} has mode {mode}: other users can read it"
        yield Finding(f"{where}.ssh_key", what, shell("chmod", 600, data.ssh_key))


def _entry(name: str, groups: list[_Group], *, stacked: bool, source: Source) -> HostEntry:
    member = [group for group in groups if name in group.hosts]
    layers = [g.data for g in member] + [g.hosts[name] for g in member]
    merged: dict[str, object] = {}
    for layer in layers:
        merged |= layer.model_dump(exclude_unset=True)
    roles = {GROUPS[group.name] for group in member}
    if stacked and Role.MASTER in roles:
        roles.add(Role.ETCD)
    return HostEntry.model_validate(
        {
            "name": name,
            "roles": frozenset(roles),
            "address": merged.get("address") if source.chooses_addresses else _address(merged),
            "ssh": {
                key.removeprefix("ssh_"): value
                for key, value in merged.items()
                if key.startswith("ssh_")
                and key != "ssh_strict_host_key_checking"
                and value is not None
            },
            "sudo": merged.get("_sudo", False),
            "sudo_password": merged.get("_sudo_password"),
            "labels": {key: value for layer in layers for key, value in layer.labels.items()},
            "taints": _taints(layers),
        }
    )


def _taints(layers: list[HostData]) -> tuple[Taint, ...]:
    found: dict[tuple[str, str], Taint] = {}
    for layer in layers:
        for text in layer.taints:
            taint, _ = rules.taint(text, "")
            if taint:
                found[taint.key, taint.effect] = taint
    return tuple(found.values())


def _address(data: Mapping[str, object]) -> IPv4Address | None:
    """Give the address that the file has: `address`, or `ssh_hostname` if that is an address."""
    address, hostname = data.get("address"), data.get("ssh_hostname")
    if isinstance(address, IPv4Address):
        return address
    if isinstance(hostname, str) and rules.is_address(hostname):
        return IPv4Address(hostname)
    return None
