"""Objects in the cluster: add-ons, access rules, and a token for nodes that join."""

from __future__ import annotations

import secrets
from datetime import timedelta

from provision.apply import addons
from provision.apply.phases.control_plane import CONTROL_PLANE
from provision.apply.phases.etcd import ETCD
from provision.apply.phases.run import Phase, Run, Work, leader, run_kubectl

TOKEN_LIFE = timedelta(minutes=30)


def _applying(run: Run) -> tuple[str, ...]:
    plan = run.plan
    joining = any(p.register for p in plan.machines.values())
    return leader(run) if plan.apply or plan.delete or joining else ()


def _apply(work: Work) -> None:
    (leader,) = work.machines
    run = work.run
    api = run.look.api()
    applied = dict(api.applied) if api else {}
    plan = run.plan
    if plan.delete:
        run_kubectl(work, leader, "delete", addons.delete_manifests(plan.delete, applied))
        applied = {k: v for k, v in applied.items() if k not in plan.delete}
    if any(p.register for p in plan.machines.values()):
        # Kubernetes' own alphabet for tokens is [a-z0-9].
        token_id, secret = secrets.token_hex(3), secrets.token_hex(8)
        manifest = addons.bootstrap_token(token_id, secret, run.now + TOKEN_LIFE)
        command = f"{addons.APPLY} -f - >/dev/null"
        run_kubectl(work, leader, "token for joining nodes", command, manifest)
        run.token = f"{token_id}.{secret}"
    if plan.apply:
        wanted = [change.manifest for change in plan.apply]
        run_kubectl(work, leader, "apply", addons.apply_manifests(wanted, applied))
    work.progress.done(leader.name)


OBJECTS = Phase(
    "objects",
    "access rules, add-ons, and a token for kubelets",
    _applying,
    _apply,
    after=(ETCD,),
    after_here=(CONTROL_PLANE,),
)
