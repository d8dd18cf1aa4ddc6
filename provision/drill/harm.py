"""Harm to the machines of a lab: power, network, services, data."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from provision.commands.etcd.status import NOSPACE
from provision.desired.components.etcd import etcdctl
from provision.drill.site import Site
from provision.local.progress import Silent
from provision.model import paths
from provision.model.errors import RefusedError, UnhealthyError

# (site, victim) -> a short note on what happened; None: no note.
Action = Callable[[Site, str], str | None]
Direction = Literal["in", "out"]

OPERATOR_HOST = 1  # this computer's host number in the lab's network
LINK = "eth0"  # the only link of a lab machine
TABLE = "clusterctl_drill"
DROP_IN = "/run/systemd/system/etcd.service.d"
ROOM = 16 << 20  # bytes that a member can still store when the drill begins to fill it
JUNK = "/run/clusterctl-drill-junk"  # a file, and the etcd key that gets its content


def power_off(site: Site, victim: str) -> None:
    site.lab.kill(site.draft, victim)


def power_on(site: Site, victim: str) -> None:
    site.lab.start(site.draft, victim)


def everywhere(act: Action) -> Action:
    """Make an action that acts on all machines at the same time."""

    def act_on_all(site: Site, victim: str) -> None:
        names = [machine.name for machine in site.cluster.machines]
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: act(site, name), names))

    return act_on_all


def systemctl(*arguments: str) -> Action:
    def act(site: Site, victim: str) -> None:
        site.run(victim, " ".join(("systemctl", *arguments)))

    return act


def drop(*directions: Direction, operator: bool) -> Action:
    """Make an action that drops packets on the machine's link, in its own network namespace.

    The rules use netdev hooks, which are next to the device (`egress` needs Linux 5.16). Packets
    that do not use the IP stack, such as keepalived's ARP, pass all hooks further up.

    Args:
        directions: directions of the lost packets, as the machine sees them.
        operator: also drop this computer's packets, and ARP. Otherwise clients outside still reach
            the machine, and learn through ARP that it has taken the virtual address.
    """

    def act(site: Site, victim: str) -> None:
        net = str(site.cluster.machine(victim).address).rpartition(".")[0]
        here = f"{net}.{OPERATOR_HOST}"
        hooks = {"in": ("ingress", "saddr"), "out": ("egress", "daddr")}
        chains = []
        for hook, address in (hooks[direction] for direction in directions):
            match = "" if operator else f"ip {address} != {here} "
            chains.append(
                f"chain {hook} {{ type filter hook {hook} device {LINK} priority 0; {match}drop; }}"
            )
        program = f"table netdev {TABLE} {{ {'; '.join(chains)}; }}\n"
        site.run(victim, "nft -f -", stdin=program.encode())

    return act


def connect(site: Site, victim: str) -> None:
    site.run(victim, f"nft delete table netdev {TABLE}")


def wipe_etcd(site: Site, victim: str) -> str:
    """Delete a member's data. Check that it does not start empty, and that `up` names the remedy.

    Raises:
        UnhealthyError: etcd started, or `up` did not name the remedy.
    """
    site.run(victim, f"systemctl stop etcd && rm -rf {paths.ETCD_DATA}/member")
    if not site.fails(victim, "systemctl start etcd"):
        message = f"etcd on {victim} started by itself, empty"
        raise UnhealthyError(message)
    ended = site.clusterctl("up", "--yes")
    if ended.code != RefusedError.exit_code or "node replace" not in ended.said:
        message = f"{victim} was wiped, and up ended with {ended.code}: {ended.err[-1000:]}"
        raise UnhealthyError(message)
    return "it refused to start empty, and up said what to type"


def burn(site: Site, victim: str) -> None:
    """Remove the machine and its disks."""
    site.lab.remove(site.draft, (victim,), Silent())


def burn_and_keep_address(site: Site, victim: str) -> None:
    """Remove the machine. The next machine of this name gets another address."""
    site.lab.reserve(site.draft, site.cluster.machine(victim).address)
    burn(site, victim)


def lose_quorum(site: Site, victim: str) -> None:
    """Power off the machines of all etcd members except the victim."""
    for member in site.cluster.etcd_members:
        if member.name != victim:
            power_off(site, member.name)


def fill_etcd(site: Site, victim: str) -> str:
    """Lower a member's quota, fill it, and check that `etcd status` names the remedy.

    Raises:
        UnhealthyError: `etcd status` does not name it.
    """
    member = site.cluster.machine(victim)
    (status,) = json.loads(site.etcdctl(member, "endpoint status -w json"))
    site.run(victim, _limited(status["Status"]["dbSize"] + ROOM))
    site.run(victim, _filled(etcdctl(site.cluster, member)))
    ended = site.clusterctl("etcd status")
    if ended.code != UnhealthyError.exit_code or "etcd defrag" not in ended.out:
        message = f"etcd is full, and its status ended with {ended.code}: {ended.out}{ended.err}"
        raise UnhealthyError(message)
    return "etcd status said what to type"


def _limited(size: int) -> str:
    """The program that restarts etcd with another quota (bytes), and keeps its unit file."""
    quota = rf"s/\(quota-backend-bytes\)=[0-9]*/\1={size}/"
    return (
        f"mkdir -p {DROP_IN} && {{ echo [Service]; echo ExecStart=; "
        rf"sed -n '/^ExecStart=/,/[^\]$/ {{{quota}; p}}' {paths.UNITS}/etcd.service; }} "
        f">{DROP_IN}/quota.conf && systemctl daemon-reload && systemctl restart etcd"
    )


def _filled(ctl: str) -> str:
    """The program that writes a megabyte, up to 100 times, until etcd raises the alarm."""
    return (
        rf"head -c 1000000 /dev/zero | tr '\0' x >{JUNK}; "
        f"for i in $(seq 100); do {ctl} put {JUNK} <{JUNK} >/dev/null 2>&1 || "
        f"{{ {ctl} alarm list | grep -q {NOSPACE} && break; }}; done; rm {JUNK}"
    )
