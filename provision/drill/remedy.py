"""The commands that repair a cluster: `node replace`, `etcd defrag`, `etcd restore`, `recover`."""

from __future__ import annotations

import secrets
from pathlib import Path

from provision.apply.phases import CONTROL_PLANE, ETCD, VERIFY
from provision.drill.harm import DROP_IN, JUNK, burn, connect, drop
from provision.drill.interruption import finished, kill_in_every_phase, lose_in
from provision.drill.site import Site
from provision.model.errors import RefusedError, UnhealthyError


def replace_machine(site: Site, victim: str) -> None:
    """Run `node replace`, and check that no change is left to do."""
    site.clusterctl("node replace", victim, "--yes", "--force").succeeded()
    site.locate()
    finished(site.inventory)


def replace_moved_machine(site: Site, victim: str) -> None:
    before = site.cluster.machine(victim).address
    replace_machine(site, victim)
    site.lab.release(site.draft)
    if site.cluster.machine(victim).address == before:
        message = f"{victim} is still at {before}"
        raise UnhealthyError(message)


def replace_machine_killed(site: Site, victim: str) -> None:
    """Kill `node replace` in each of its phases. When the machine is back, `up` does the rest."""
    seed = secrets.randbelow(1000)
    arguments = (victim, "--yes")
    _, last = kill_in_every_phase("node replace", site.inventory, seed, *arguments)
    if last.code != RefusedError.exit_code:
        last.succeeded()
    site.clusterctl("up", "--yes").succeeded()
    site.locate()
    finished(site.inventory)


def replace_machine_cut_off(site: Site, victim: str) -> str:
    """Burn a master, and cut off its replacement while it gets its control plane."""
    burn(site, victim)
    cut = drop("in", "out", operator=True)
    return lose_in(CONTROL_PLANE, cut, site, victim, "node replace", victim, "--yes")


def recover(site: Site, victim: str) -> None:
    """Recover the cluster from the data of one member, then replace the other machines."""
    site.clusterctl("recover", "--yes").succeeded()
    for member in site.cluster.etcd_members:
        if member.name != victim:
            site.clusterctl("node replace", member.name, "--yes").succeeded()
    site.locate()
    finished(site.inventory)


def defrag(site: Site, victim: str) -> None:
    """Make etcd accept writes again, then delete the data that filled it."""
    site.clusterctl("etcd defrag").succeeded()
    site.etcdctl(site.cluster.machine(victim), f"del {JUNK}")
    site.run(victim, f"rm -r {DROP_IN} && systemctl daemon-reload && systemctl restart etcd")
    finished(site.inventory)


def take_snapshot(site: Site, victim: str) -> None:
    _snapshot(site).unlink(missing_ok=True)
    site.clusterctl("etcd snapshot", "-o", str(_snapshot(site))).succeeded()


def restore_killed(site: Site, victim: str) -> None:
    """Kill `etcd restore` in each phase that changes something. The last run finishes it."""
    seed = secrets.randbelow(1000)
    arguments = ("--from", str(_snapshot(site)), "--yes")
    _, last = kill_in_every_phase(
        "etcd restore", site.inventory, seed, *arguments, but=(VERIFY.name,)
    )
    last.succeeded()
    finished(site.inventory)


def restore_cut_off(site: Site, victim: str) -> None:
    """Cut a member off while `etcd restore` starts the members. Connect it, and restore again."""
    arguments = ("--from", str(_snapshot(site)), "--yes")
    cut = drop("in", "out", operator=True)
    lose_in(ETCD, cut, site, victim, "etcd restore", *arguments)
    connect(site, victim)
    site.clusterctl("etcd restore", *arguments).succeeded()
    finished(site.inventory)


def _snapshot(site: Site) -> Path:
    return site.kubeconfig.with_name("snapshot.tar.zst.age")
