"""Checks of an inventory that need several fields, or rules of other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import chain

from provision.artifacts.catalogue import catalogue
from provision.inventory import extra_args, rules
from provision.inventory.amis import KNOWN, image_of
from provision.inventory.draft import HostEntry
from provision.inventory.files import is_file
from provision.inventory.wording import show
from provision.model import ports
from provision.model.backup_place import S3Place, SshPlace, place
from provision.model.cluster import Role, Settings
from provision.model.commands import clusterctl, shell
from provision.model.errors import Finding
from provision.model.settings.backup import Backup
from provision.model.settings.components import KUBERNETES_DEFAULT
from provision.model.settings.ec2 import Ec2
from provision.model.settings.network import Networks
from provision.model.settings.security import Certificates
from provision.model.source import EC2, SOURCES
from provision.pki.age import is_recipient

# kube-apiserver takes /12 at most; below /24 there is no room for DNS and a few Services.
_SERVICES_WIDEST, _SERVICES_NARROWEST = 12, 24
# kube-controller-manager makes 2**16 shares at most; /28 leaves a node 13 pods.
_NODE_BITS, _NODE_NARROWEST = 16, 28
# Minor versions of the catalogue that upstream no longer maintains.
_ENDED = ("1.34.",)  # ended on 2026-10-27: kubernetes.io/releases/1.34
_MACHINES_NARROWEST = 24  # machines are .11 and up, the virtual address .100


def settings(given: Settings, broken: frozenset[str]) -> Iterator[Finding]:
    """Check the settings without the machines.

    Args:
        given: with absolute paths.
        broken: dotted names of fields that were wrong and now have their defaults.
    """
    return chain(
        _version(given.kubernetes),
        _api(given),
        _networks(given.networks, broken),
        _artifacts(given, broken),
        _vagrant(given),
        _backup(given.backup),
        extra_args.settings(given, broken),
        _urls(given),
        _firewall(given),
        _certificates(given, broken),
        _of_source(given, broken),
    )


def _of_source(given: Settings, broken: frozenset[str]) -> Iterator[Finding]:
    """Check the settings of the machines' source, and that those of other sources are not set."""
    for name, its in _OF_SOURCE.items():
        if name == given.source.name:
            yield from its.settings(given, broken)
        elif getattr(given, name) != Settings.model_fields[name].default:
            hint = f'write "machines": "{name}", or leave it out'
            yield Finding(f"cluster.{name}", f"is for {SOURCES[name].machines}", hint)


def _firewall(given: Settings) -> Iterator[Finding]:
    where = "cluster.firewall.allow"
    for rule in given.firewall.allow:
        what, _, source = rule.partition(" from ")
        if any(not 0 < int(port) <= 65535 for port in what.partition("/")[2].split("-")):
            yield Finding(
                where, f"{show(rule)} has a port that does not exist", "ports are 1 to 65535"
            )
        if source and not rules.is_network(source):
            hint = "write an address, or a network such as 10.0.0.0/8"
            yield Finding(where, f"{show(source)} is not a network", hint)


def _version(version: str) -> Iterator[Finding]:
    bare, known = version.removeprefix("v"), catalogue().versions
    if bare != version and bare in known:
        yield Finding("cluster.kubernetes", f"{show(version)} begins with v", f"write {bare!r}")
    elif version not in known:
        hint = f"known: {', '.join(known)}"
        yield Finding("cluster.kubernetes", f"{show(version)} is not a known version", hint)
    elif version.startswith(_ENDED):
        hint = f"upgrade one minor version at a time, up to {KUBERNETES_DEFAULT}"
        what = f"Kubernetes {version} gets no more security fixes"
        yield Finding("cluster.kubernetes", what, hint, fatal=False)


def _api(given: Settings) -> Iterator[Finding]:
    name, vip = given.api.name, given.api.vip
    if name is not None and not rules.is_domain(name):
        hint = "write a name such as api.example.org; an address belongs in `vip`"
        yield Finding("cluster.api.name", f"{show(name)} is not a DNS name", hint)
    if vip and not rules.is_usable(vip):
        hint = "choose a free address of the machines' network"
        what = f"{show(str(vip))} cannot be the address of a machine"
        yield Finding("cluster.api.vip", what, hint)
    if given.api.port != ports.API and name is None:
        hint = "leave `port` out, or set `name`: the load balancer that has this port"
        yield Finding(
            "cluster.api.port",
            f"{given.api.port} is not the port of the masters, {ports.API}",
            hint,
        )
    if vip and not given.source.carries_vip:
        hint = "leave it out: clusterctl makes a load balancer"
        what = f"the network of {given.source.machines} does not carry a virtual address"
        yield Finding("cluster.api.vip", what, hint)


def _networks(networks: Networks, broken: frozenset[str]) -> Iterator[Finding]:
    where = "cluster.networks"
    pods, services, share = networks.pods, networks.services, networks.node_prefix
    if not _SERVICES_WIDEST <= services.prefixlen <= _SERVICES_NARROWEST:
        hint = f"choose a network of the size /{_SERVICES_WIDEST} to /{_SERVICES_NARROWEST}"
        yield Finding(f"{where}.services", f"{show(str(services))} has the wrong size", hint)
    if not broken & {"networks.pods", "networks.services"} and pods.overlaps(services):
        what = f"{show(str(pods))} overlaps the Services' {services}"
        yield Finding(f"{where}.pods", what, "choose two networks that nothing else uses")
    least, most = pods.prefixlen, min(pods.prefixlen + _NODE_BITS, _NODE_NARROWEST)
    if not broken & {"networks.pods", "networks.node_prefix"} and not least <= share <= most:
        hint = f"choose {least} to {most}: the prefix length of each node's part of {pods}"
        if least > most:
            hint = f"`pods` is too small: choose a /{_NODE_NARROWEST} or a wider network"
        yield Finding(f"{where}.node_prefix", f"{show(share)} is out of range", hint)
    if networks.mtu and not 1280 <= networks.mtu <= 65535:
        hint = "choose 1280 to 65535, or 0 for the MTU of the machine's interface"
        yield Finding(f"{where}.mtu", f"{show(networks.mtu)} is out of range", hint)
    if not rules.is_domain(networks.domain):
        what = f"{show(networks.domain)} is not a DNS domain"
        yield Finding(f"{where}.domain", what, "write a domain such as cluster.local")
    if not broken & {"networks.plugin", "networks.manifests"}:
        if networks.plugin == "custom" and not networks.manifests:
            hint = 'give the files: "manifests": ["calico.yaml"]'
            yield Finding(f"{where}.manifests", "the plug-in 'custom' has no manifests", hint)
        elif networks.plugin != "custom" and networks.manifests:
            hint = 'write "plugin": "custom", or leave the manifests out'
            yield Finding(
                f"{where}.manifests", f"the plug-in {networks.plugin!r} has its own manifests", hint
            )


def _artifacts(given: Settings, broken: frozenset[str]) -> Iterator[Finding]:
    artifacts, where = given.artifacts, "cluster.artifacts"
    for source, value in (("mirror", artifacts.mirror), ("bundle", artifacts.bundle)):
        if broken & {"artifacts.source", f"artifacts.{source}"}:
            continue
        if artifacts.source == source and not value:
            hint = f'write "artifacts": {{"source": "{source}", "{source}": "..."}}'
            yield Finding(f"{where}.{source}", f"is missing for the source {source!r}", hint)
        elif artifacts.source != source and value is not None:
            hint = f'write "source": "{source}", or leave `{source}` out'
            yield Finding(
                f"{where}.{source}", f"the source {artifacts.source!r} does not use it", hint
            )
    if artifacts.mirror:
        yield from _open_url(f"{where}.mirror", artifacts.mirror)
    if artifacts.bundle and not is_file(artifacts.bundle):
        hint = f"{clusterctl('artifacts', 'bundle', 'INVENTORY', artifacts.bundle)} makes one"
        yield Finding(f"{where}.bundle", f"there is no file {show(artifacts.bundle)}", hint)


def _vagrant(given: Settings) -> Iterator[Finding]:
    network, where = given.vagrant.network, "cluster.vagrant.network"
    if network is None:
        return
    if network.prefixlen > _MACHINES_NARROWEST or not network.is_private:
        hint = f"choose a private network, /{_MACHINES_NARROWEST} or wider, such as 192.168.56.0/24"
        yield Finding(where, f"{show(str(network))} cannot be the machines' network", hint)
    for key in ("pods", "services"):
        if network.overlaps(getattr(given.networks, key)):
            what = f"{show(str(network))} overlaps cluster.networks.{key}"
            yield Finding(where, what, "choose a network that nothing else uses")


def _backup(backup: Backup) -> Iterator[Finding]:
    where = "cluster.backup"
    for text in backup.recipients:
        if not is_recipient(text):
            hint = f"{shell('age-keygen', '-y', 'FILE')} prints the public key, age1..."
            yield Finding(f"{where}.recipients", f"{show(text)} is not a public key of age", hint)
    to = place(backup)
    if backup.to and to is None:
        hint = "write ssh://USER@HOST/DIRECTORY or s3://BUCKET/PREFIX"
        yield Finding(f"{where}.to", f"{show(backup.to)} is not a place for copies", hint)
    needed = {SshPlace: ("ssh_key", "ssh_host_key"), S3Place: ("s3_access_key", "s3_secret_key")}
    for name in needed.get(type(to), ()):
        if not getattr(backup, name):
            yield Finding(f"{where}.{name}", "is missing", f"{show(backup.to)} needs it")
    if backup.ssh_host_key and not rules.is_host_key(backup.ssh_host_key):
        hint = "write TYPE and KEY as in known_hosts: ssh-ed25519 AAAA..."
        yield Finding(f"{where}.ssh_host_key", "is not a public host key", hint)
    if backup.s3_endpoint and not rules.is_endpoint(backup.s3_endpoint):
        yield _no_url(f"{where}.s3_endpoint", backup.s3_endpoint)
    if not rules.is_region(backup.s3_region):
        what = f"{show(backup.s3_region)} is not a region"
        yield Finding(f"{where}.s3_region", what, "write a region such as eu-central-1")
    for name in ("s3_access_key", "s3_secret_key"):
        if not rules.is_s3_key(getattr(backup, name)):
            hint = "letters, digits, '_', '+', '/', '=', '.' and '-' are allowed"
            yield Finding(f"{where}.{name}", "has characters that are not allowed", hint)


def _urls(given: Settings) -> Iterator[Finding]:
    for key in ("http", "https"):
        url = getattr(given.proxy, key)
        if url is not None and not rules.is_url(url):
            yield _no_url(f"cluster.proxy.{key}", url)
    for registry, urls in given.registry_mirrors.items():
        where = f"cluster.registry_mirrors.{registry}"
        if not rules.is_registry(registry):
            yield Finding(
                where, f"{show(registry)} is not a registry", "write a name such as docker.io"
            )
        for url in urls:
            yield from _open_url(where, url)


# A subnet on AWS is a /28 at least, a VPC a /16 at most; each zone has a sixteenth.
_VPC_WIDEST, _VPC_NARROWEST, _MOST_ZONES = 16, 24, 8


def _ec2(given: Settings, broken: frozenset[str]) -> Iterator[Finding]:
    ec2, where = given.ec2, "cluster.ec2"
    needed = {
        "region": "write a region such as 'eu-central-1'",
        "zones": f"write zones such as ['{ec2.region or 'eu-central-1'}a']",
        "owner": "write a team or an e-mail address",
    }
    if ec2.ssh != "ssm":
        needed["ssh_from"] = (
            "write networks such as ['203.0.113.7/32'], the address of this computer"
        )
    for field, hint in needed.items():
        if not getattr(ec2, field) and f"ec2.{field}" not in broken:
            yield Finding(f"{where}.{field}", "is missing", hint)
    if len(set(ec2.zones)) < len(ec2.zones):
        yield Finding(f"{where}.zones", "has a zone twice", "write each zone once")
    if len(ec2.zones) > _MOST_ZONES:
        yield Finding(
            f"{where}.zones", f"{len(ec2.zones)} zones are too many", f"write {_MOST_ZONES} at most"
        )
    if not _VPC_WIDEST <= ec2.network.prefixlen <= _VPC_NARROWEST:
        hint = f"choose a network of the size /{_VPC_WIDEST} to /{_VPC_NARROWEST}"
        yield Finding(f"{where}.network", f"{show(str(ec2.network))} has the wrong size", hint)
    for field in ("pods", "services"):
        other = getattr(given.networks, field)
        if not broken & {"ec2.network", f"networks.{field}"} and ec2.network.overlaps(other):
            what = f"{show(str(ec2.network))} overlaps the network of the {field}, {other}"
            yield Finding(f"{where}.network", what, "choose networks that nothing else uses")
    if ec2.group and given.firewall.enabled:
        what = "its rules have the machines of the inventory only, not the workers of `group`"
        yield Finding(
            "cluster.firewall", what, "leave it out: security groups protect the machines on EC2"
        )
    yield from _image(ec2)
    if ec2.endpoint and not rules.is_url(ec2.endpoint):
        yield _no_url(f"{where}.endpoint", ec2.endpoint)
    reserved = [key for key in ec2.tags if key.startswith(("clusterctl:", "aws:")) or key == "Name"]
    for key in reserved:
        yield Finding(f"{where}.tags.{key}", "clusterctl or AWS sets this tag", "leave it out")


def _image(ec2: Ec2) -> Iterator[Finding]:
    image, where = image_of(ec2.image), "cluster.ec2.image"
    if image is None:
        hint = f"write {', '.join(KNOWN)}, an AMI's id, or OWNER/NAME with * in the name"
        yield Finding(where, f"{show(ec2.image)} is not an image", hint)
    elif ec2.ssh == "ssm" and not image.agent:
        able = " or ".join(name for name, known in KNOWN.items() if known.agent)
        what = f"{show(ec2.image)} has no agent of the Session Manager, which `ssm` needs"
        yield Finding(where, what, f"use {able}, or your own AMI with the agent")


def _certificates(given: Settings, broken: frozenset[str]) -> Iterator[Finding]:
    if not given.certificates.external:
        return
    if given.ec2.group and "ec2.group" not in broken:
        hint = "write each worker in the inventory, and leave the group out"
        what = "machines of an Auto Scaling group cannot get certificates"
        yield Finding("cluster.ec2.group", f"{what} from an external authority", hint)
    if given.certificates.leaf_days != Certificates().leaf_days:
        hint = "leave it out"
        yield Finding("cluster.certificates.leaf_days", "the external authority decides it", hint)


def _no_url(where: str, url: str) -> Finding:
    return Finding(where, f"{show(url)} is not a URL", "write http://... or https://...")


def _open_url(where: str, url: str) -> Iterator[Finding]:
    """Check a URL that is in argument lists and files which every user of a machine can read."""
    if not rules.is_url(url):
        yield _no_url(where, url)
    elif rules.has_user(url):
        yield Finding(
            where,
            f"{show(url)} has a user's name or password in it",
            "use a mirror that needs no password",
        )


def hosts(
    entries: Sequence[HostEntry], given: Settings, groups: Mapping[str, object]
) -> Iterator[Finding]:
    """Check the machines together: quorum, and room for all of them."""
    members = sum(Role.ETCD in host.roles for host in entries)
    where = "etcd" if "etcd" in groups else "masters"
    if members == 2 and not given.force_even_etcd:
        what = "2 etcd members cannot lose one: the cluster stops when either fails"
        hint = "use 1 or 3, or set cluster['force_even_etcd'] = True"
        yield Finding(where, what, hint)
    elif members and members % 2 == 0:
        what = f"{members} etcd members survive as many failures as {members - 1}"
        yield Finding(where, what, f"use {members - 1} or {members + 1}", fatal=False)
    masters = [host.name for host in entries if Role.MASTER in host.roles]
    reached = given.api.name or given.api.vip or given.source.makes_machines
    if len(masters) > 1 and not reached:
        what = f"kubeconfigs have the address of {masters[0]} only, one of {len(masters)} masters"
        hint = 'set "vip" to a free address of their network, or "name" to your load balancer'
        yield Finding("cluster.api", what, hint, fatal=False)
    if its := _OF_SOURCE.get(given.source.name):
        yield from its.hosts(entries, given)
    nodes = sum(bool(host.roles - {Role.ETCD}) for host in entries)
    share, pods = given.networks.node_prefix, given.networks.pods
    if pods.prefixlen <= share <= 32 and nodes > 2 ** (share - pods.prefixlen):
        what = f"{show(share)} gives {2 ** (share - pods.prefixlen)} parts of {pods}"
        hint = f"there are {nodes} nodes: choose a wider `pods` or a larger `node_prefix`"
        yield Finding("cluster.networks.node_prefix", what, hint)


def _ec2_hosts(entries: Sequence[HostEntry], given: Settings) -> Iterator[Finding]:
    image = image_of(given.ec2.image)
    nameless = [host.name for host in entries if image and not (image.user or "user" in host.ssh)]
    if nameless:
        what = f"the user for SSH of {show(given.ec2.image)} is not known"
        yield Finding(f"{nameless[0]}.ssh_user", what, "set `ssh_user` of the groups or machines")
    # Five of a subnet's addresses are AWS' own; machines start after the fifth.
    room = 2 ** (28 - given.ec2.network.prefixlen) - 6
    zones = max(len(given.ec2.zones), 1)
    if room > 0 and -(-len(entries) // zones) + 1 > room:
        what = f"{show(str(given.ec2.network))} has room for {room - 1} machines in each zone"
        yield Finding("cluster.ec2.network", what, "choose a wider network")
    if len(entries) > 1 and len(given.ec2.zones) == 2 and not given.force_even_etcd:
        what = "of 2 zones, one has most etcd members: the cluster stops when that zone fails"
        yield Finding("cluster.ec2.zones", what, "use 3 zones", fatal=False)


@dataclass(frozen=True)
class _SourceChecks:
    """Checks for one source; the field of `Settings` with its name has its settings."""

    settings: Callable[[Settings, frozenset[str]], Iterator[Finding]]
    hosts: Callable[[Sequence[HostEntry], Settings], Iterator[Finding]]


_OF_SOURCE = {EC2.name: _SourceChecks(_ec2, _ec2_hosts)}


def addresses(
    machines: Mapping[str, IPv4Address], vip: IPv4Address | None, networks: Networks
) -> Iterator[Finding]:
    """Check the addresses that are known.

    Args:
        machines: name -> address on the machines' network.
    """
    seen: dict[IPv4Address, str] = {}
    for name, address in machines.items():
        if address in seen:
            what = f"{show(str(address))} is the address of {seen[address]} too"
            yield Finding(f"{name}.address", what, "give each machine its own address")
        seen.setdefault(address, name)
    if vip in seen:
        what = f"{show(str(vip))} is the address of {seen[vip]}"
        yield Finding("cluster.api.vip", what, "choose a free address of the machines' network")
    for field in ("pods", "services"):
        network = getattr(networks, field)
        inside = [f"{name} ({a})" for a, name in seen.items() if a in network]
        inside += [f"the virtual address {vip}"] if vip and vip in network else []
        if inside:
            what = f"{show(str(network))} contains {', '.join(inside)}"
            yield Finding(
                f"cluster.networks.{field}", what, "choose a network that nothing else uses"
            )
