"""Certificates that an external authority signs: taken from their machine, or missing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from provision.model.cluster import Cluster
from provision.model.commands import clusterctl
from provision.model.errors import Finding, RefusedError
from provision.model.observed import Observed
from provision.pki import table
from provision.pki.leaf import Cause, Issued, Leaf, issue, problem
from provision.pki.requests import key_path, signed_path
from provision.pki.trust import Trust

if TYPE_CHECKING:
    from provision.plan.model import Plan


def obtain(leaf: Leaf, trust: Trust, observed: Observed, now: datetime) -> Issued:
    """Issue a leaf, or take the certificate that the external authority has signed.

    Raises:
        TrustError: there is no signed certificate, and clusterctl has no key of the authority.
    """
    return ready(leaf, trust, observed, now) or issue(leaf, trust, now)


def ready(leaf: Leaf, trust: Trust, observed: Observed, now: datetime) -> Issued | None:
    """Give the certificate signed for this machine's request; None: there is no good one."""
    pem = observed.certificates.get(signed_path(leaf))
    key = observed.files.get(key_path(leaf))
    if not (trust.external and pem and key) or problem(leaf, pem, trust, now, reserve=0):
        return None
    return Issued(leaf, pem.encode(), b"", key_path(leaf), key.sha256)


def refusal(cluster: Cluster, what: str) -> RefusedError:
    """Give the error for a step that needs the external authority, with the commands to type."""
    inventory = cluster.inventory
    message = f"the authority of {cluster.name} is external: {what}"
    return RefusedError(
        message,
        hint=f"{clusterctl('certs', 'csr', inventory, '-o', 'DIR')} writes requests for it to sign; "
        f"then {clusterctl('certs', 'import', inventory, 'DIR')}",
    )


def refuse_own_authority(cluster: Cluster, trust: Trust) -> None:
    """Check that the keys are those of an external authority, if the inventory says so.

    Raises:
        RefusedError: the cluster has the keys of its authorities.
    """
    if cluster.certificates.external and not trust.external:
        message = (
            f"{cluster.name} has authorities of its own, with their keys: the inventory cannot make "
            "them external"
        )
        raise RefusedError(
            message,
            hint='take "authority": "external" out; it is for a cluster that is new '
            f"({clusterctl('down', cluster.inventory)} takes this one apart)",
        )


def refuse_unsigned(
    cluster: Cluster, trust: Trust, observed: Mapping[str, Observed], plan: Plan, now: datetime
) -> None:
    """Check that the external authority has signed every certificate that the plan needs.

    Raises:
        RefusedError: names every certificate that the authority has not signed.
    """
    if not trust.external:
        return
    lacking: dict[str, list[str]] = {}
    for name, machine in plan.machines.items():
        for component in machine.components.values():
            for change in component.leaves:
                if not ready(change.leaf, trust, observed[name], now):
                    reason = f"{change.leaf.name} ({change.reason})"
                    lacking.setdefault(name, []).append(reason)
    if lacking:
        where = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in lacking.items())
        raise refusal(cluster, f"these machines need certificates that it has not signed. {where}")


def due(
    cluster: Cluster, trust: Trust, observed: Mapping[str, Observed], now: datetime
) -> Iterator[Finding]:
    """Warn of certificates that the external authority must sign again soon."""
    if not trust.external:
        return
    for machine in cluster.machines:
        view = observed.get(machine.name)
        if view is None or not view.reachable:
            continue
        reasons = {
            leaf.name: reason
            for leaf in table.node_leaves(cluster, machine)
            if (reason := problem(leaf, view.certificates.get(leaf.cert_path), trust, now))
            and reason.cause is Cause.DUE
            and not ready(leaf, trust, view, now)
        }
        if reasons:
            what = ", ".join(f"{name} {reason}" for name, reason in reasons.items())
            hint = clusterctl("certs", "csr", cluster.inventory, "-o", "DIR")
            yield Finding(machine.name, what, hint, fatal=False)
