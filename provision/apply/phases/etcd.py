"""The members of etcd: they form a cluster, join it and restart."""

from __future__ import annotations

from dataclasses import replace

from provision.apply import etcd_members
from provision.apply.phases.apiserver import without_apiserver
from provision.apply.phases.components import change, install
from provision.apply.phases.run import Phase, Run, Work
from provision.apply.phases.services import SERVICES
from provision.desired.catalog import desired
from provision.desired.components import etcd
from provision.model import paths
from provision.model.cluster import Machine


def _changing(run: Run) -> tuple[str, ...]:
    names = set(run.plan.touching("etcd"))
    names |= {name for name, p in run.plan.machines.items() if p.form_etcd or p.join_etcd}
    return tuple(name for name in run.plan.machines if name in names)


def _etcd(work: Work) -> None:
    """Start stopped members together, then join new ones, then restart the others one by one.

    So as many members as possible run before the first restart.
    """
    run, machines, plans = work.run, work.machines, work.plan.machines
    joining = [m for m in machines if plans[m.name].join_etcd]
    look = run.look
    stopped = [m for m in machines if m not in joining and not look[m.name].runs(etcd.UNIT)]
    if stopped:
        install(work, {m: [change(run, m, "etcd")] for m in stopped})
    for machine in joining:
        _join(work, machine)
    others = [m for m in machines if m not in joining and m not in stopped]
    # Without a quorum all restart together: there is none to keep, and no member recovers alone.
    for batch in [[m] for m in others] if run.plan.running or not others else [others]:
        with without_apiserver(work, batch):
            install(work, {m: [change(run, m, "etcd")] for m in batch})


def _join(work: Work, machine: Machine) -> None:
    run, session = work.run, work.session
    via = etcd_members.healthy_member(run.look, but=machine.name)
    planned = change(run, machine, "etcd")
    if not run.look[machine.name].etcd_data:
        expected = etcd_members.add_learner(session, via, machine)
        files = (*planned.files, etcd.join_file("existing", expected))
        # The machine may have been a member before, under the same name.
        planned = replace(planned, files=files, remove=(paths.ETCD_FORMED,))
    facts = run.look.facts(machine)
    health = desired(session.cluster, machine, run.trust, facts)["etcd"].health
    # A learner answers no linearizable read before its promotion.
    started = replace(planned, health=etcd_members.started(session.cluster, machine))
    install(work, {machine: [started]})
    etcd_members.promote(session, via, machine)
    etcd_members.seal(session, machine, health)


ETCD = Phase("etcd", "the cluster's memory", _changing, _etcd, after_here=(SERVICES,))
