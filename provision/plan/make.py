"""(desired, observed) -> Plan: the changes that `up` would make, machine by machine. Pure.

The dry run prints a Plan, and `up` carries out the same Plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from provision.artifacts.model import ArtifactSet
from provision.desired.addons import manifests
from provision.model.cluster import Cluster
from provision.model.observed import Observed, api_view
from provision.pki.authority import Authority
from provision.pki.trust import Trust
from provision.plan.addons import why_applied
from provision.plan.machine import plan_machine
from provision.plan.model import ManifestChange, Plan, Renewal
from provision.plan.quorum import Standing, membership
from provision.plan.refuse import (
    refuse_changed_networks,
    refuse_far_version,
    refuse_restarts,
    refuse_unfinished_restore,
    standings,
)
from provision.plan.user_images import missing_images


def make_plan(
    cluster: Cluster,
    trust: Trust,
    observed: Mapping[str, Observed],
    artifacts: ArtifactSet,
    now: datetime,
    renewal: Renewal | None = None,
) -> Plan:
    """Plan everything that `up` would do.

    Args:
        observed: name -> result of its probe, of the probed machines: all, or some.
        renewal: certificates to be issued again as well.

    Raises:
        RefusedError: the inventory's changes would harm the existing cluster.
    """
    refuse_unfinished_restore(cluster, observed)
    refuse_far_version(cluster, observed)
    refuse_changed_networks(cluster, observed)
    reachable = {name: view for name, view in observed.items() if view.reachable}
    known = membership(cluster, reachable)
    api = api_view(observed)
    # An apiserver is ready only with an etcd that was formed, even if etcd's machines were not
    # probed.
    formed = api is not None or any(view.etcd_formed for view in reachable.values())
    of_etcd = standings(cluster, reachable, known, formed=formed)
    nodes = None if api is None else {n.name: n for n in api.nodes}
    lacking = missing_images(cluster, observed)
    machines = {
        m.name: plan_machine(
            cluster,
            m,
            trust,
            reachable[m.name],
            artifacts,
            now,
            etcd=of_etcd.get(m.name, Standing.MEMBER),
            nodes=nodes,
            renewal=renewal,
            user_images=lacking.get(m.name, ()),
        )
        for m in cluster.machines
        if m.name in reachable
    }
    refuse_restarts(cluster, reachable, known, machines)
    applied = {} if api is None else api.applied
    wanted = manifests(cluster, trust.bundle(Authority.KUBERNETES))
    return Plan(
        machines=machines,
        absent={name: view.error for name, view in observed.items() if not view.reachable},
        apply=tuple(
            ManifestChange(manifest, reason)
            for manifest in wanted
            if (reason := why_applied(manifest, observed))
        ),
        delete=tuple(sorted(set(applied) - {m.name for m in wanted})),
        running=formed and _has_quorum(reachable),
    )


def _has_quorum(reachable: Mapping[str, Observed]) -> bool:
    """Whether a member has a quorum; True if no member was asked."""
    views = [view.etcd for view in reachable.values() if view.etcd]
    return not views or any(view.healthy for view in views)
