"""Rules of a machine's own packet filter: which ones stop the cluster, and whether hints help."""

import os
import shutil
import subprocess
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.model import paths
from provision.model.cluster import Cluster, Machine, Role, Ssh
from provision.model.packet_filter import Command
from provision.observe import parse_rules
from provision.observe.parse import parse
from provision.observe.script import Query
from provision.plan.packet_filter import needed, opening, stops

NEEDED = ("unshare", "nft", "iptables", "iptables-nft-save", "ip")
in_a_namespace = pytest.mark.skipif(
    os.geteuid() != 0
    or not all(map(shutil.which, NEEDED))
    or subprocess.run(["unshare", "-n", "true"], check=False).returncode != 0,  # noqa: S607
    reason="needs root, network namespaces, iptables and nft",
)


def machine(name, address, *roles):
    ssh = Ssh(hostname=address)
    return Machine(name=name, address=IPv4Address(address), roles=frozenset(roles), ssh=ssh)


MASTER = machine("m1", "10.0.0.11", Role.MASTER, Role.ETCD)
WORKER = machine("w1", "10.0.0.111", Role.WORKER)
CLUSTER = Cluster(name="demo", machines=(MASTER, WORKER), inventory=Path("/inventory.py"))

DOCKER = """
iptables -P FORWARD DROP
iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
iptables -N DOCKER
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
"""
ORACLE = """
iptables -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
iptables -A INPUT -p icmp -j ACCEPT
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited
iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited
"""
NFT = """
nft -f - <<'END'
table inet filter {
    set allowed { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iif lo accept
        ip protocol icmp accept
        meta l4proto ipv6-icmp accept
        tcp dport { 22, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95 } accept
        log prefix "dropped { " counter reject with icmpx type admin-prohibited
    }
    chain forward { type filter hook forward priority 0; policy drop; }
}
END
"""
OPEN = """
iptables -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -s 192.0.2.7 -j DROP
iptables -A INPUT -i wan0 -j DROP
iptables -A INPUT -p tcp --dport 25 -j REJECT
nft add table inet mine
nft add chain inet mine input '{ type filter hook input priority 10; policy drop; }'
nft add rule inet mine input ip saddr 10.0.0.0/8 accept
nft add chain inet mine late '{ type filter hook forward priority 10; policy accept; }'
nft add rule inet mine late ip6 saddr ::/0 drop
nft add rule inet mine late ct state invalid drop
"""


def rules_after(*programs):
    """What the probe reads in a network namespace of its own where these programs ran."""
    query = Query(address="127.0.0.1").program()
    before = time.time()
    script = "set -e\nip link set lo up\n" + "\n".join(programs) + '\nset +e\nexec sh -c "$PROBE"'
    done = subprocess.run(
        ["unshare", "-n", "bash", "-c", script],  # noqa: S607
        env={**os.environ, "PROBE": query},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "@@ end" in done.stdout, done.stderr
    seen = parse("here", done.stdout, before, time.time())
    assert seen.host is not None, seen.error
    return seen.host.rules


def stopped(rules, one=MASTER):
    return stops(rules, needed(CLUSTER, one, "eth0"))


@pytest.fixture(autouse=True)
def _no_record(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORD", str(tmp_path / "record"))


@in_a_namespace
@pytest.mark.parametrize("one", [MASTER, WORKER], ids=["master", "worker"])
@pytest.mark.parametrize(
    ("program", "chains"),
    [
        ("", set()),
        (OPEN, set()),
        ("iptables -P FORWARD DROP", {"FORWARD"}),
        (DOCKER, {"FORWARD"}),
        (ORACLE, {"INPUT", "FORWARD"}),
        (NFT, {"input", "forward"}),
    ],
    ids=["no rules", "rules that let the cluster in", "policy", "docker", "oracle", "nft"],
)
def test_the_chain_that_stops_the_cluster_is_found_and_the_hint_opens_it(program, chains, one):
    rules = rules_after(program)
    found = stopped(rules, one)

    assert {stop.chain.name for stop in found} == chains
    hints = [opening(stop, rules, CLUSTER) for stop in found]
    assert stopped(rules_after(program, *hints), one) == []


@in_a_namespace
def test_dockers_own_chain_for_users_is_the_one_that_the_hint_names():
    rules = rules_after(DOCKER)
    (stop,) = stopped(rules)

    assert opening(stop, rules, CLUSTER).startswith("iptables -I DOCKER-USER -s ")


WORDS = st.sampled_from(
    ["-A", "INPUT", "FORWARD", "-j", "DROP", "ACCEPT", "-s", "10.0.0.0/8", "!", "-p", "tcp", '"',
     "--dport", "22:80", ":INPUT", ":X", "-", "table", "inet", "filter", "{", "}", "chain", "set",
     "type", "hook", "input", "policy", "drop", "accept", "ip", "saddr", "@x", "tcp", "dport",
     "22,", "jump", "X", "vmap", "new"]
)  # fmt: skip
LINES = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=20)


@given(LINES)
def test_no_rules_however_strange_end_the_check_with_an_exception(lines):
    chains = (
        *parse_rules.iptables(lines, Command.IPTABLES),
        *parse_rules.nft(lines, frozenset()),
    )
    stops(chains, needed(CLUSTER, MASTER, "eth0"))


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_dropped_range_of_ports_stops_the_cluster_if_it_has_a_port_of_it(one, other):
    first, last = sorted((one, other))
    lines = [":INPUT ACCEPT [0:0]", f"-A INPUT -p tcp -m tcp --dport {first}:{last} -j DROP"]
    ports = {
        packet.port for packet in needed(CLUSTER, MASTER, "eth0") if packet.hook.value == "input"
    }
    found = stopped(parse_rules.iptables(lines, Command.IPTABLES))

    assert bool(found) == any(first <= port <= last for port in ports if port)
