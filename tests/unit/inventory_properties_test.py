"""Whatever the file says: what is right comes through, what is wrong is named, nothing crashes."""

import keyword
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from string import ascii_letters, ascii_lowercase, digits
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from provision.artifacts.catalogue import catalogue
from provision.inventory import Draft, read
from provision.model.cluster import Role
from provision.model.errors import InventoryError

# No deadlines: the machine may be busy with something else.
MANY = settings(deadline=None)
FEW = settings(deadline=None, max_examples=20)

# `from_regex` takes ten times as long. A text that is right already stays as it is, so these make
# every text of the form: [a-z]([-a-z0-9]{0,8}[a-z0-9])? and [A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?
LABEL = st.text(f"{ascii_lowercase}{digits}-", min_size=1, max_size=10).map(
    lambda text: text.lstrip(f"{digits}-").rstrip("-") or "a"
)
QUALIFIED = st.text(f"{ascii_letters}{digits}-_.", min_size=1, max_size=22).map(
    lambda text: text.strip("-_.") or "A"
)
URL = st.builds("http{}://{}.example.org".format, st.sampled_from(["", "s"]), LABEL)
FLAG = st.sampled_from(["v", "vmodule", "logging-format"])
COMPONENT = st.sampled_from(["kube-apiserver", "kubelet", "etcd", "kube-scheduler", "kube-proxy"])
EFFECT = st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"])


def some(**fields):
    """Make a dict with any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


CLUSTER = st.fixed_dictionaries(
    {"name": LABEL},
    optional={
        "kubernetes": st.sampled_from(catalogue().versions),
        "masters_schedulable": st.booleans(),
        "api": some(name=LABEL.map("{}.example.org".format), vip=st.just("192.0.2.200")),
        "networks": some(
            pods=st.sampled_from(["10.0.0.0/14", "10.32.0.0/16", "172.16.0.0/14"]),
            services=st.sampled_from(["10.128.0.0/12", "10.200.0.0/16", "10.200.7.0/24"]),
            node_prefix=st.integers(22, 28),
            domain=LABEL,
            proxy_mode=st.sampled_from(["nftables", "iptables", "none"]),
            mtu=st.integers(1280, 9000),
        ),
        "addons": some(coredns=st.booleans(), metrics_server=st.booleans()),
        "extra_args": st.dictionaries(COMPONENT, st.dictionaries(FLAG, st.text(max_size=9))),
        "proxy": some(http=URL, https=URL, no_proxy=st.lists(LABEL, max_size=2)),
        "registry_mirrors": st.dictionaries(LABEL, st.lists(URL, max_size=2), max_size=2),
    },
)
DATA = some(
    ssh_port=st.integers(1, 65535),
    ssh_user=LABEL,
    ssh_password=st.text(max_size=20),
    _sudo=st.booleans(),
    labels=st.dictionaries(QUALIFIED, QUALIFIED, max_size=3),
    taints=st.lists(st.builds("{}={}:{}".format, QUALIFIED, QUALIFIED, EFFECT), max_size=2),
)


@st.composite
def inventories(draw):
    """Give `cluster` and the groups, as the file has them; every machine has an address."""
    names = draw(st.lists(LABEL, min_size=3, max_size=8, unique=True))
    where = {name: f"192.0.2.{number}" for number, name in enumerate(names, start=1)}
    masters = draw(st.sampled_from([1, 3]))
    members = [(n, {"ssh_hostname": where[n], **draw(DATA)}) for n in names]
    cluster = draw(CLUSTER)
    if cluster.get("networks", {}).get("proxy_mode") == "none":
        cluster.get("extra_args", {}).pop("kube-proxy", None)
    return cluster, {"masters": members[:masters], "workers": members[masters:]}


def write(folder: str, cluster: object, groups: dict[str, object]) -> Path:
    path = Path(folder) / "inventory.py"
    lines = [f"cluster = {cluster!r}", *(f"{name} = {group!r}" for name, group in groups.items())]
    path.write_text("\n".join(lines), "utf-8", "surrogatepass")
    return path


def attempt(cluster: object, groups: dict[str, object]) -> Draft | InventoryError:
    with TemporaryDirectory() as folder:
        try:
            return read(write(folder, cluster, groups))
        except InventoryError as error:
            return error


@MANY
@given(inventories())
def test_a_valid_inventory_comes_through_unchanged(inventory):
    cluster, groups = inventory
    assume(groups["workers"])
    draft = attempt(cluster, groups)
    assert isinstance(draft, Draft), draft
    dumped = draft.model_dump(mode="json")
    for key, value in cluster.items():
        if isinstance(value, dict) and key not in {"extra_args", "registry_mirrors"}:
            assert {k: dumped[key][k] for k in value} == value
        else:
            assert dumped[key] == value
    hosts = {host.name: host for host in draft.hosts}
    for group, role in (("masters", Role.MASTER), ("workers", Role.WORKER)):
        for name, data in groups[group]:
            host = hosts.pop(name)
            assert role in host.roles
            assert host.address == IPv4Address(data["ssh_hostname"])
            assert host.sudo == data.get("_sudo", False)
            assert host.labels == data.get("labels", {})
            assert {str(t) for t in host.taints} <= set(data.get("taints", []))
            given_ssh = {k[4:]: v for k, v in data.items() if k.startswith("ssh_")}
            assert host.ssh == given_ssh
    assert not hosts


JUNK = st.one_of(st.floats(1.5, 2.5), st.lists(st.integers(), min_size=1), st.just({"zz": [1]}))
NO_URL = st.text("abc:/ ", max_size=8)
NO_NAME = st.text("ABC_-. \n", min_size=1, max_size=6)
NO_KEY = st.sampled_from(["", "_", "-a", "a b", "a/b/c", "B/c", "node-role.kubernetes.io/x"])
BAD_SETTINGS = {
    "name": st.one_of(JUNK, NO_NAME, st.none()),
    "machines": st.one_of(JUNK, LABEL),
    "kubernetes": st.one_of(JUNK, st.from_regex(r"v?[01]\.[0-9]{1,2}\.[0-9]", fullmatch=True)),
    "masters_schedulable": st.one_of(JUNK, st.just("perhaps")),
    "api": st.one_of(JUNK, LABEL),
    "api.vip": st.one_of(JUNK, LABEL, st.sampled_from(["192.0.2.1", "0.0.0.1", "auto", "::1"])),
    "api.name": st.one_of(JUNK, NO_NAME),
    "api.port": st.one_of(JUNK, st.integers(max_value=1023), st.integers(65536)),
    "networks.pods": st.one_of(
        JUNK, LABEL, st.sampled_from(["10.0.0.1/8", "192.0.2.0/24", "::/0"])
    ),
    "networks.services": st.one_of(JUNK, st.sampled_from(["10.0.0.0/8", "10.96.0.0/25", "x"])),
    "networks.node_prefix": st.one_of(JUNK, st.integers(max_value=13), st.integers(29)),
    "networks.domain": st.one_of(JUNK, NO_NAME),
    "networks.plugin": st.one_of(JUNK, st.sampled_from(["cilium", "Routed", ""])),
    "networks.manifests": st.one_of(JUNK, st.just(["/nowhere/cni.yaml"])),
    "networks.proxy_mode": st.one_of(JUNK, st.just("ipvs")),
    "networks.mtu": st.one_of(JUNK, st.integers(1, 1279), st.integers(65536)),
    "artifacts.source": st.one_of(JUNK, st.just("internet")),
    "artifacts.mirror": st.one_of(JUNK, NO_URL),
    "artifacts.bundle": st.one_of(JUNK, st.just("/nowhere/bundle")),
    "addons.coredns": st.one_of(JUNK, st.just("perhaps")),
    "extra_args": st.one_of(JUNK, LABEL),
    "proxy.http": st.one_of(JUNK, NO_URL),
    "lab.image": st.one_of(JUNK, st.just("huge")),
}
BAD_DATA = {
    "address": st.one_of(JUNK, LABEL, st.sampled_from(["127.0.0.1", "224.0.0.1", "1.2.3"])),
    "ssh_hostname": st.one_of(JUNK, st.sampled_from(["-x", "", "a b", "127.0.0.1"])),
    "ssh_port": st.one_of(JUNK, st.booleans(), st.integers(max_value=0), st.integers(65536)),
    "ssh_user": st.one_of(JUNK, st.sampled_from(["-x", "", "a b", "a\nb"])),
    "ssh_key": st.one_of(JUNK, st.just("/nowhere/key"), st.text("/\0x", min_size=300)),
    "ssh_password": JUNK,
    "ssh_host_key": st.one_of(JUNK, st.text(max_size=30)),
    "ssh_strict_host_key_checking": st.sampled_from(["no", "off", "accept-new", False]),
    "_sudo": st.one_of(JUNK, st.just("perhaps")),
    "sudo_password": JUNK,
    "labels": st.one_of(JUNK, LABEL, st.dictionaries(NO_KEY, LABEL, min_size=1)),
    "taints": st.one_of(JUNK, LABEL, st.lists(LABEL, min_size=1)),
}
ALIASES = {"sudo_password": "_sudo_password"}


def refused_at(outcome: Draft | InventoryError, where: str) -> bool:
    assert isinstance(outcome, InventoryError), f"{where} was accepted"
    return any(f.fatal and (f.where + ".").startswith(where + ".") for f in outcome.findings)


@pytest.mark.parametrize("field", BAD_SETTINGS)
@FEW
@given(data=st.data(), inventory=inventories())
def test_one_bad_setting_is_refused_by_its_name(field, data, inventory):
    cluster, groups = inventory
    value = data.draw(BAD_SETTINGS[field])
    section, _, name = field.partition(".")
    inner = {**cluster.get(section, {}), name: value} if name else value
    cluster = {**cluster, section: inner}
    if field == "artifacts.mirror":
        cluster["artifacts"]["source"] = "mirror"
    if field == "api.vip" and value == "192.0.2.1":
        groups["masters"][0][1]["ssh_hostname"] = "192.0.2.1"
    outcome = attempt(cluster, groups)
    assert refused_at(outcome, f"cluster.{field}"), outcome


@pytest.mark.parametrize("field", BAD_DATA)
@FEW
@given(data=st.data(), inventory=inventories())
def test_one_bad_datum_of_a_machine_is_refused_by_its_name(field, data, inventory):
    cluster, groups = inventory
    name, own = groups["masters"][0]
    groups["masters"][0] = (name, {**own, field: data.draw(BAD_DATA[field])})
    outcome = attempt(cluster, groups)
    assert refused_at(outcome, f"masters.{name}.{ALIASES.get(field, field)}"), outcome


@MANY
@given(
    inventory=inventories(), unknown=LABEL, section=st.sampled_from(["", "api", "networks", "lab"])
)
def test_an_unknown_field_is_refused_wherever_it_is(inventory, unknown, section):
    cluster, groups = inventory
    target = {**cluster.get(section, {}), f"{unknown}-x": 1} if section else 1
    cluster = {**cluster, section or f"{unknown}-x": target}
    where = f"cluster.{section}.{unknown}-x" if section else f"cluster.{unknown}-x"
    assert refused_at(attempt(cluster, groups), where)


@MANY
@given(inventory=inventories(), address=st.ip_addresses(v=4), prefix=st.integers(8, 28))
def test_networks_that_overlap_are_never_accepted(inventory, address, prefix):
    cluster, groups = inventory
    pods = str(IPv4Network((int(address), prefix), strict=False))
    draft = attempt({**cluster, "networks": {"pods": pods, "node_prefix": 28}}, groups)
    if isinstance(draft, Draft):
        assert not draft.networks.pods.overlaps(draft.networks.services)
        assert all(host.address not in draft.networks.pods for host in draft.hosts)
        assert draft.api.vip not in draft.networks.pods if draft.api.vip else True


KEYS = st.one_of(
    st.sampled_from(
        ["name", "api", "vip", "networks", "pods", "machines", "extra_args", "kubelet"]
    ),
    st.sampled_from(["ssh_key", "ssh_port", "address", "labels", "taints", "_sudo", "sudo"]),
    st.text(max_size=3),
    st.integers(),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=3),
    st.sampled_from(["auto", "lab", "10.0.0.0/8", "~nobody/x", "\0", "\ud800", "m1", "x" * 5000]),
    st.sets(st.integers(), max_size=1),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
)


@MANY
@example(cluster=("\ud800", b""), groups={})
@given(
    cluster=ANYTHING,
    groups=st.dictionaries(st.sampled_from(["masters", "workers", "etcd"]), ANYTHING),
)
def test_any_values_at_all_give_a_draft_or_an_inventory_error(cluster, groups):
    outcome = attempt(cluster, {n: g for n, g in groups.items() if not keyword.iskeyword(n)})
    str(outcome).encode()


@MANY
@given(text=st.one_of(st.text(), st.text("masters=[]{}(),\"'\n :#\\0")))
def test_any_text_at_all_gives_a_draft_or_an_inventory_error(text):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.py"
        path.write_text(text, "utf-8", "surrogatepass")
        with pytest.raises(InventoryError):
            read(path)
