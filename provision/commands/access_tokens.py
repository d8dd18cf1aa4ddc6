"""Tokens of service accounts: for administrators of a cluster that cannot issue certificates itself."""

from __future__ import annotations

import json
from datetime import timedelta
from shlex import quote

from provision.apply import kubectl
from provision.apply.addons import APPLY
from provision.apply.checked import checked
from provision.apply.session import Session
from provision.desired.addons import ADMINS
from provision.desired.components.control_plane import KUBECTL
from provision.inventory.rules import is_domain
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError
from provision.model.look import Look

# The API refuses to sign a token with a shorter life.
SHORTEST = timedelta(minutes=10)


def service_account_token(session: Session, look: Look, name: str, life: timedelta) -> str:
    """A token for this administrator; the service account is created if it does not exist.

    Raises:
        RefusedError: a service account cannot have that name, or a token cannot have that life.
        UnreachableError: no master answers.
        PhaseError: the API did not issue a token.
    """
    if not is_domain(name):
        message = f"{name!r} cannot be the name of a service account"
        raise RefusedError(message, hint="--user NAME: lower-case letters, digits, '-' and '.'")
    if life < SHORTEST:
        message = f"a token must live at least {SHORTEST // timedelta(minutes=1)} minutes"
        raise RefusedError(message, hint="--ttl 0.17")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": ADMINS},
        "automountServiceAccountToken": False,
    }
    program = (
        f"printf %s {quote(json.dumps(account))} | {APPLY} -f - >/dev/null && "
        f"{KUBECTL} -n {ADMINS} create token {name} --duration={round(life.total_seconds())}s"
    )
    leader = look.leader()
    answer = kubectl.run(session, leader, program, secret_output=True)
    path = session.cluster.inventory
    hint = (
        f"{clusterctl('status', path)}; "
        f"without a kubeconfig: {clusterctl('kubectl', path, '--', 'get', 'nodes')}"
    )
    return checked(answer, leader, "kubeconfig", "kubectl: token", hint=hint).strip()
