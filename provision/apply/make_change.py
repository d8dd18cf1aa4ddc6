"""A planned change of a component -> the change itself, with what the machine's record will say.

The record (`provision.model.paths.RECORD`) makes the next run exact: it has the paths that
clusterctl manages, and a digest of what each unit had read when it was last started. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from provision.apply.change import ComponentChange
from provision.desired.digests import certificate_hash, unit_digest
from provision.desired.model import HostFile
from provision.model.cluster import Cluster
from provision.model.observed import Observed
from provision.pki.leaf import Issued
from provision.pki.requests import all_paths
from provision.pki.trust import Trust
from provision.plan.model import ComponentPlan
from provision.plan.record import entries

_ACTIONS = ("start", "restart", "reload", "enable")


def component_change(
    plan: ComponentPlan,
    issued: tuple[Issued, ...],
    observed: Observed,
    cluster: Cluster,
    trust: Trust,
    one_time: tuple[HostFile, ...] = (),
    remove: tuple[str, ...] = (),
) -> ComponentChange:
    """The whole change of a component, ready to be sent.

    Args:
        plan: from `provision.plan.machine`.
        issued: the certificates that the plan wants, issued.
        observed: the machine as the plan saw it.
        cluster: whose machine it is.
        trust: the cluster's.
        one_time: extra files that are not part of the desired state: they are gone once the
            component is healthy.
        remove: existing files that conflict with them, and are removed.
    """
    state = plan.state
    hashes = dict(plan.hashes)
    hashes |= {i.leaf.cert_path: certificate_hash(i.certificate.decode()) for i in issued}
    # A unit that never ran must be in the record before it starts: `down` has to find it.
    before = {
        unit.name: there.digest if (there := observed.units.get(unit.name)) else ""
        for unit in state.units
    }
    # A unit that the change leaves alone has already read the current files.
    after = {unit.name: unit_digest(unit, state, hashes) for unit in state.units}
    units = {
        action: tuple(change.name for change in plan.units if change.action == action)
        for action in _ACTIONS
    }
    fulfilled = tuple(path for i in issued if i.key_path for path in all_paths(i.leaf))
    record = _record(plan, issued, observed, cluster, trust)
    return ComponentChange(
        component=state.name,
        users=state.users,
        directories=plan.directories,
        files=(*(change.file for change in plan.files), *one_time),
        issued=issued,
        remove=(*remove, *fulfilled),
        sysctls=state.sysctls if plan.files else (),
        modules=state.modules if plan.files else (),
        health=state.health,
        health_timeout=state.health_timeout,
        record=record + _units(after),
        record_before=record + _units(before),
        **units,
    )


def _record(
    plan: ComponentPlan,
    issued: tuple[Issued, ...],
    observed: Observed,
    cluster: Cluster,
    trust: Trust,
) -> str:
    """The component's record without its units: each key's path is followed by the key's hash."""
    state = plan.state
    keys = {
        leaf.key_path: observed.files[leaf.key_path].sha256
        for leaf in state.leaves
        if leaf.key_path in observed.files
    }
    keys |= {i.leaf.key_path: i.key_sha256 or hashlib.sha256(i.key).hexdigest() for i in issued}
    lines = [
        (*entry, keys[entry[1]]) if entry[0] == "key" else entry
        for entry in entries(state, cluster, trust)
        if entry[0] != "unit"
    ]
    return "".join("\t".join(line) + "\n" for line in (*lines, *plan.kept))


def _units(digests: Mapping[str, str]) -> str:
    return "".join(f"unit\t{name}\t{digest}\n" for name, digest in digests.items())
