"""The faults of the drill, as data: the victim, the harm, how to undo it, and when it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from provision.drill import interruption, remedy
from provision.drill.harm import (
    Action,
    burn,
    burn_and_keep_address,
    connect,
    drop,
    everywhere,
    fill_etcd,
    lose_quorum,
    power_off,
    power_on,
    systemctl,
    wipe_etcd,
)
from provision.drill.site import Site
from provision.model.cluster import Cluster

# Clusters that can survive a fault


def _spare_master(cluster: Cluster) -> bool:
    return len(cluster.masters) > 2 and len(cluster.etcd_members) > 2


def _has_worker(cluster: Cluster) -> bool:
    return bool(cluster.workers)


def _any(_: Cluster) -> bool:
    return True


# Victims, and machines whose proxy the second writer uses


def _entrance(site: Site) -> str:
    return site.entrance()


def _leader(site: Site) -> str:
    return site.leader()


def _last_master(site: Site) -> str:
    return site.cluster.masters[-1].name


def _last_worker(site: Site) -> str:
    return site.cluster.workers[-1].name


def _elsewhere(site: Site, victim: str) -> str:
    return site.bystander(victim).name


def _there(site: Site, victim: str) -> str:
    return victim


# When a fault is over


def _settled(site: Site, since: datetime) -> bool:
    return site.ready(since) and site.healthy()


def _ready_with_names(site: Site, since: datetime) -> bool:
    return site.ready(since) and site.resolves()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of harm, and how to undo it.

    Attributes:
        victim: (site) -> name of the machine that the fault hits.
        inflict: (site, victim) -> a note for the result, or None. It raises UnhealthyError if the
            cluster or clusterctl does something that it must not do.
        undo: (site, victim) -> None. It repairs the damage with the means that a user has.
        needs: whether a cluster is large enough to survive the fault.
        over: (site, time at which undoing began) -> whether the cluster has recovered.
        proxy: (site, victim) -> name of the machine whose loopback proxy the second writer uses.
        total: all writes fail until the fault is undone. The outage is measured from the time at
            which undoing begins.
        may_lose: writes that are acknowledged before the fault is undone may be lost, because no
            other machine has them.
    """

    name: str = field(kw_only=False)
    summary: str = field(kw_only=False)
    victim: Callable[[Site], str]
    inflict: Action
    undo: Action
    needs: Callable[[Cluster], bool] = _spare_master
    over: Callable[[Site, datetime], bool] = _settled
    proxy: Callable[[Site, str], str] = _elsewhere
    total: bool = False
    may_lose: bool = False


FAULTS: tuple[Fault, ...] = (
    Fault(
        "machine-off",
        "the machine with the API's address loses power",
        victim=_entrance,
        inflict=power_off,
        undo=power_on,
    ),
    Fault(
        "leader-off",
        "the machine of etcd's leader loses power",
        victim=_leader,
        inflict=power_off,
        undo=power_on,
    ),
    Fault(
        "leader-cut-off",
        "the machine of etcd's leader is cut off from everything",
        victim=_leader,
        inflict=drop("in", "out", operator=True),
        undo=connect,
    ),
    Fault(
        "apiserver-stopped",
        "kube-apiserver is stopped on the machine with the API's address",
        victim=_entrance,
        inflict=systemctl("stop", "kube-apiserver"),
        undo=systemctl("start", "kube-apiserver"),
        proxy=_there,
    ),
    Fault(
        "apiserver-frozen",
        "kube-apiserver is frozen on the machine with the API's address",
        victim=_entrance,
        inflict=systemctl("kill", "--signal=STOP", "kube-apiserver"),
        undo=systemctl("kill", "--signal=CONT", "kube-apiserver"),
        proxy=_there,
    ),
    Fault(
        "partitioned",
        "the machine with the API's address and the others lose each other; clients reach both",
        victim=_entrance,
        inflict=drop("in", "out", operator=False),
        undo=connect,
    ),
    Fault(
        "deaf",
        "the machine of etcd's leader no longer hears the others; they hear it",
        victim=_leader,
        inflict=drop("in", operator=False),
        undo=connect,
    ),
    Fault(
        "mute",
        "the machine of etcd's leader is no longer heard by the others; it hears them",
        victim=_leader,
        inflict=drop("out", operator=False),
        undo=connect,
    ),
    Fault(
        "ctrl-c",
        "Ctrl-C while `up` restarts one apiserver after the other; `up` again",
        victim=_last_master,
        inflict=interruption.press_ctrl_c,
        undo=interruption.finish,
        needs=_any,
    ),
    Fault(
        "two-operators",
        "a second `up` while the first restarts one apiserver after the other",
        victim=_last_master,
        inflict=interruption.meet,
        undo=interruption.finish,
        needs=_any,
    ),
    Fault(
        "stale-lock",
        "an `up` is frozen, and its lock with it; after a minute of silence another `up` takes over",
        victim=_last_master,
        inflict=interruption.freeze,
        undo=interruption.finish,
        needs=_any,
    ),
    Fault(
        "machine-lost-in-up",
        "a master loses power while `up` restarts one apiserver after the other; `up` again",
        victim=_last_master,
        inflict=interruption.lose(power_off),
        undo=interruption.start_and_finish,
    ),
    Fault(
        "network-lost-in-up",
        "a master is cut off while `up` restarts one apiserver after the other; `up` again",
        victim=_last_master,
        inflict=interruption.lose(drop("in", "out", operator=True)),
        undo=interruption.connect_and_finish,
    ),
    Fault(
        "network-lost-in-replace",
        "a master burns down; its successor is cut off while it gets its control plane; `up`",
        victim=_last_master,
        inflict=remedy.replace_machine_cut_off,
        undo=interruption.connect_and_finish,
    ),
    Fault(
        "network-lost-in-restore",
        "a member is cut off while `etcd restore` starts it; `etcd restore` again",
        victim=_last_master,
        inflict=remedy.take_snapshot,
        undo=remedy.restore_cut_off,
        total=True,
        may_lose=True,
    ),
    Fault(
        "host-key-changed",
        "a machine shows another SSH host key: it is refused, and nothing is done there",
        victim=_last_master,
        inflict=interruption.change_host_key,
        undo=interruption.restore_host_key,
        needs=_any,
    ),
    Fault(
        "etcd-wiped",
        "the data of etcd's leader are deleted; it must not start empty; `node replace`",
        victim=_leader,
        inflict=wipe_etcd,
        undo=remedy.replace_machine,
    ),
    Fault(
        "worker-replaced",
        "a worker burns down; `node replace`",
        victim=_last_worker,
        inflict=burn,
        undo=remedy.replace_machine,
        needs=_has_worker,
    ),
    Fault(
        "master-replaced",
        "the machine of etcd's leader burns down; `node replace`",
        victim=_leader,
        inflict=burn,
        undo=remedy.replace_machine,
    ),
    Fault(
        "master-moved",
        "the machine with the API's address burns down; `node replace`, at another address",
        victim=_entrance,
        inflict=burn_and_keep_address,
        undo=remedy.replace_moved_machine,
    ),
    Fault(
        "replace-killed",
        "a master burns down; `node replace` is killed in every phase; `node replace` or `up` again",
        victim=_last_master,
        inflict=burn,
        undo=remedy.replace_machine_killed,
    ),
    Fault(
        "nospace",
        "the data of etcd's leader reach their limit, and no write is taken; `etcd defrag`",
        victim=_leader,
        inflict=fill_etcd,
        undo=remedy.defrag,
        needs=_any,
        total=True,
    ),
    Fault(
        "restore-killed",
        "`etcd restore` of a snapshot is killed in every phase; `etcd restore` again",
        victim=_last_master,
        inflict=remedy.take_snapshot,
        undo=remedy.restore_killed,
        needs=_any,
        total=True,
        may_lose=True,
    ),
    Fault(
        "quorum-lost",
        "all machines with etcd are gone for good but its leader's; `recover`, `node replace`",
        victim=_leader,
        inflict=lose_quorum,
        undo=remedy.recover,
        proxy=_there,
        total=True,
        may_lose=True,
    ),
    Fault(
        "all-off",
        "all machines lose power at once",
        victim=_last_master,
        inflict=everywhere(power_off),
        undo=everywhere(power_on),
        needs=_any,
        over=_ready_with_names,
        total=True,
    ),
)
