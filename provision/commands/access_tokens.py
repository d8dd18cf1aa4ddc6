"""Administrators where no certificate can be issued for them: service accounts, and their tokens."""

from __future__ import annotations

import json
from datetime import timedelta
from shlex import quote

from provision.apply import kubectl
from provision.apply.addons import APPLY
from provision.apply.session import Session
from provision.desired.addons import ADMINS
from provision.desired.components.control_plane import KUBECTL
from provision.inventory.rules import is_domain
from provision.model.errors import Failure, PhaseError, RefusedError
from provision.model.look import Look

# The API signs none that lives shorter.
SHORTEST = timedelta(minutes=10)


def service_account_token(session: Session, look: Look, name: str, life: timedelta) -> str:
    """A token of this administrator's, who is made if there is none of the name.

    Raises:
        RefusedError: there can be no service account of that name, or no such token.
        UnreachableError: no master answers.
        PhaseError: the API does not give one.
    """
    if not is_domain(name):
        message = f"{name!r} cannot be the name of a service account"
        raise RefusedError(message, hint="--user NAME: lower-case letters, digits, '-' and '.'")
    if life < SHORTEST:
        message = f"a token lives {SHORTEST // timedelta(minutes=1)} minutes at least"
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
    code, out, error = kubectl.run(session, leader, program, secret_output=True)
    if code != 0:
        cause = error.strip()[-2000:]
        hint = f"clusterctl status {session.cluster.inventory}; in an emergency clusterctl kubectl"
        raise PhaseError("kubeconfig", [Failure(leader.name, "kubectl: token", cause)], hint=hint)
    return out.strip()
