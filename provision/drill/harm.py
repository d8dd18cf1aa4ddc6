"""What can be done to the machines of a lab: power, network, services, data."""

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

# (site, victim) -> what was seen, in a few words; None: nothing to tell.
Action = Callable[[Site, str], str | None]
Direction = Literal["in", "out"]

OPERATOR_HOST = 1  # of the lab's network: this computer
LINK = "eth0"  # the lab machines' only one
TABLE = "clusterctl_drill"
DROP_IN = "/run/systemd/system/etcd.service.d"
ROOM = 16 << 20  # bytes until a member that is to be filled is full
JUNK = "/run/clusterctl-drill-junk"  # the file, and the key of etcd's that it is written to


def power_off(site: Site, victim: str) -> None:
    site.lab.kill(site.draft, victim)


def power_on(site: Site, victim: str) -> None:
    site.lab.start(site.draft, victim)


def everywhere(act: Action) -> Action:
    """Do it to all machines, at once."""

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
    """Drop packets on the machine's link, in its own network namespace.

    Where the link begins and ends (netdev hooks; `egress` needs Linux 5.16): what is sent past the
    stack, as keepalived's ARP is, passes every hook further up.

    Args:
        directions: of the packets that are lost, as the machine sees them.
        operator: this computer's too, and ARP; else clients outside still reach the machine, and
            are told by ARP when it takes the virtual address.
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
    """Delete a member's data, and see that it does not start empty, and that `up` says what to do.

    Raises:
        UnhealthyError: it started, or `up` did not say.
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
    """The machine is gone, and its disks with it."""
    site.lab.remove(site.draft, (victim,), Silent())


def burn_and_keep_address(site: Site, victim: str) -> None:
    """The machine is gone, and the next of its name gets another address."""
    site.lab.reserve(site.draft, site.cluster.machine(victim).address)
    burn(site, victim)


def lose_quorum(site: Site, victim: str) -> None:
    """All members' machines lose power but one."""
    for member in site.cluster.etcd_members:
        if member.name != victim:
            power_off(site, member.name)


def fill_etcd(site: Site, victim: str) -> str:
    """Give a member little room, fill it, and see that `etcd status` says what to type.

    Raises:
        UnhealthyError: it does not.
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
    """The program that starts etcd anew with another quota; its unit file stays as it is."""
    quota = rf"s/\(quota-backend-bytes\)=[0-9]*/\1={size}/"
    return (
        f"mkdir -p {DROP_IN} && {{ echo [Service]; echo ExecStart=; "
        rf"sed -n '/^ExecStart=/,/[^\]$/ {{{quota}; p}}' {paths.UNITS}/etcd.service; }} "
        f">{DROP_IN}/quota.conf && systemctl daemon-reload && systemctl restart etcd"
    )


def _filled(ctl: str) -> str:
    """The program that writes a megabyte again and again, until etcd has raised the alarm."""
    return (
        rf"head -c 1000000 /dev/zero | tr '\0' x >{JUNK}; "
        f"for i in $(seq 100); do {ctl} put {JUNK} <{JUNK} >/dev/null 2>&1 || "
        f"{{ {ctl} alarm list | grep -q {NOSPACE} && break; }}; done; rm {JUNK}"
    )
