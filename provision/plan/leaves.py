"""The reasons for issuing a certificate. Pure."""

from __future__ import annotations

from datetime import datetime

from provision.model.observed import Observed
from provision.pki.leaf import Cause, Leaf, Reason, problem
from provision.pki.trust import Trust
from provision.plan.external_authority import ready
from provision.plan.model import Renewal

# A kubelet renews its own certificate after 70 to 90 % of its life.
KUBELETS_RESERVE = 0.1


def leaf_problem(
    leaf: Leaf, trust: Trust, observed: Observed, now: datetime, *, by_kubelet: bool = False
) -> Reason | None:
    """Give the fault of a machine's certificate or key; None: it has no fault.

    Args:
        by_kubelet: the kubelet made the key and renews the certificate itself.
    """
    pem = observed.certificates.get(leaf.cert_path)
    reserve = KUBELETS_RESERVE if by_kubelet else 1 / 3
    reason = problem(leaf, pem, trust, now, reserve=reserve)
    if reason or by_kubelet:
        return reason
    key = observed.files.get(leaf.key_path)
    if key is None:
        return Reason("its key is missing")
    if not key.sha256:
        return Reason("its key is not the one that clusterctl put there")
    if (key.mode, key.owner, key.group) != (0o600, leaf.owner, leaf.group):
        mode = f"{key.mode:04o} {key.owner}:{key.group}"
        return Reason(f"its key is {mode}: others may have read it")
    return None


def why_issued(
    leaf: Leaf,
    trust: Trust,
    observed: Observed,
    now: datetime,
    renewal: Renewal | None,
    *,
    by_kubelet: bool = False,
) -> Reason | None:
    """Give the reason for issuing a leaf now; None: it is not issued."""
    reason = leaf_problem(leaf, trust, observed, now, by_kubelet=by_kubelet)
    if trust.external:
        usable = reason is None or reason.cause is Cause.DUE
        if ready(leaf, trust, observed, now):
            return Reason("signed anew", Cause.SIGNED) if usable else reason
        # clusterctl cannot issue the certificate. While the old one is usable, the run continues.
        return None if usable else reason
    if renewal and renewal.wants(leaf, observed.certificates.get(leaf.cert_path)):
        return Reason("to be renewed", Cause.RENEWAL)
    return reason
