"""What clusterctl does, as lists of phases that can be read aloud.

A phase says on which machines something changes, from the plan, and what is done there. A phase
with nothing to do is skipped. All machines of a phase work side by side, except where a running
control plane is changed: then one master after the other, each healthy before the next.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import gevent

from provision.apply import addons as kubectl
from provision.apply import etcd_members as member_steps
from provision.apply import kubectl as api_client
from provision.apply.change import ComponentChange
from provision.apply.delivery import IMAGES, Want, deliver
from provision.apply.deploys import install_component, install_packages, remove_unwanted
from provision.apply.make_change import component_change
from provision.apply.self_join import Bundle
from provision.apply.session import Session
from provision.apply.verify import verify
from provision.artifacts import compressed
from provision.artifacts.model import ArtifactSet
from provision.desired.addons import Manifest, manifests
from provision.desired.catalog import desired
from provision.desired.components import etcd, firewall, haproxy, node
from provision.desired.model import HostFile
from provision.machines import Cloud
from provision.model import paths
from provision.model.cluster import Machine
from provision.model.errors import Failure, PhaseError, UnreachableError
from provision.model.observed import api_view
from provision.pki import kubeconfig
from provision.pki.table import KUBELET_CLIENT
from provision.pki.trust import Authority, Trust
from provision.plan import external_authority as outside
from provision.plan.model import Plan
from provision.plan.record import Removal

DNS = "coredns"
READY_TIMEOUT = 180  # seconds; kubelet's own limit for its runtime is 120
TOKEN_LIFE = timedelta(minutes=30)
_LAST_WORD = 3  # seconds for a machine to be told something when the run ends
_START = "systemctl --no-block start kube-apiserver.service"


@dataclass
class Run:
    """What the phases of one run share."""

    session: Session
    trust: Trust
    artifacts: ArtifactSet
    plan: Plan
    now: datetime
    token: str = ""
    bundle: Bundle | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def machines(self, names: Iterable[str]) -> tuple[Machine, ...]:
        wanted = set(names)
        return tuple(m for m in self.session.cluster.machines if m.name in wanted)


@dataclass(frozen=True)
class Phase:
    """A step of a workflow.

    Attributes:
        machines: on which machines there is something to do; none: the phase is skipped.
        run: does it there; raises PhaseError with every failure.
    """

    name: str
    summary: str
    machines: Callable[[Run], tuple[str, ...]]
    run: Callable[[Run, tuple[Machine, ...]], None]


def execute(run: Run, phases: Iterable[Phase]) -> None:
    """Go through the phases; each is timed, and stops the run if it fails.

    Raises:
        PhaseError: of the first phase that failed, with every machine that failed in it.
    """
    progress = run.session.progress
    for phase in phases:
        names = phase.machines(run)
        if not names:
            continue
        began = time.monotonic()
        with progress.phase(phase.name, phase.summary, names):
            try:
                phase.run(run, run.machines(names))
            finally:
                run.seconds[phase.name] = time.monotonic() - began


# Which machines


def _lacking_packages(run: Run) -> tuple[str, ...]:
    return tuple(name for name, plan in run.plan.machines.items() if plan.packages)


def _lacking_artifacts(run: Run) -> tuple[str, ...]:
    return tuple(name for name, p in run.plan.machines.items() if p.binaries or p.images)


def _changing(*components: str) -> Callable[[Run], tuple[str, ...]]:
    return lambda run: run.plan.touching(*components)


def _changing_etcd(run: Run) -> tuple[str, ...]:
    names = set(run.plan.touching("etcd"))
    names |= {name for name, p in run.plan.machines.items() if p.form_etcd or p.join_etcd}
    return tuple(name for name in run.plan.machines if name in names)


def _control_plane(run: Run) -> set[str]:
    return {m.name for m in run.session.cluster.machines if m.is_master or m.has_etcd}


def _changing_control_plane(run: Run) -> tuple[str, ...]:
    return tuple(name for name in run.plan.touching(*MASTER) if name in _control_plane(run))


def _changing_elsewhere(run: Run) -> tuple[str, ...]:
    return tuple(name for name in run.plan.touching(*SERVICES) if name not in _control_plane(run))


def _applying(run: Run) -> tuple[str, ...]:
    plan = run.plan
    joining = any(p.register for p in plan.machines.values())
    return (run.session.leader().name,) if plan.apply or plan.delete or joining else ()


def _joining(run: Run) -> tuple[str, ...]:
    names = set(run.plan.touching("kubelet", "kube-proxy"))
    names |= {name for name, p in run.plan.machines.items() if p.register or p.node}
    return tuple(name for name in run.plan.machines if name in names)


def _removing(*, firewall: bool) -> Callable[[Run], tuple[str, ...]]:
    return lambda run: tuple(name for name in run.plan.machines if _removals(run, name, firewall))


def _removals(run: Run, machine: str, firewall: bool) -> tuple[Removal, ...]:
    removals = run.plan.machines[machine].remove
    return tuple(r for r in removals if (r.component == "firewall") == firewall)


def _leader(run: Run) -> tuple[str, ...]:
    return (run.session.leader().name,)


def _offering(run: Run) -> tuple[str, ...]:
    return _leader(run) if run.plan.join else ()


def _all_nodes(run: Run) -> tuple[str, ...]:
    return tuple(m.name for m in run.session.cluster.nodes if m.name in run.plan.machines)


# What is done there


def _packages(run: Run, machines: tuple[Machine, ...]) -> None:
    def body(machine: Machine) -> None:
        install_packages(
            packages=run.plan.machines[machine.name].packages,
            os_family=run.session.facts(machine).os_family,
        )

    run.session.engine.run("packages", body, machines, run.session.progress)


def _artifacts(run: Run, machines: tuple[Machine, ...]) -> None:
    wants = {}
    for machine in machines:
        plan = run.plan.machines[machine.name]
        arch = run.session.facts(machine).arch
        wants[machine.name] = tuple(
            Want(binary.artifact, binary.path, arch) for binary in plan.binaries
        ) + ((Want(IMAGES, paths.REGISTRY, arch),) if plan.images else ())
    deliver(run.session.engine, wants, run.artifacts, run.session.progress)


def _components(
    phase: str, *names: str, rolling: bool = False
) -> Callable[[Run, tuple[Machine, ...]], None]:
    """Bring these components' files in place and their units up, on all machines at once.

    Args:
        rolling: one machine after the other when the cluster is already running.
    """

    def run_phase(run: Run, machines: tuple[Machine, ...]) -> None:
        batches = [(m,) for m in machines] if rolling and run.plan.running else [machines]
        for batch in batches:
            _install(run, phase, {m: [_change(run, m, name) for name in names] for m in batch})

    return run_phase


def _install(run: Run, phase: str, changes: Mapping[Machine, Sequence[ComponentChange]]) -> None:
    def body(machine: Machine) -> None:
        for change in changes[machine]:
            install_component(change=change)

    run.session.engine.run(phase, body, tuple(changes), run.session.progress)


def _etcd(run: Run, machines: tuple[Machine, ...]) -> None:
    """First what does not run, together; then who joins; then who restarts, one by one.

    So the quorum is as large as it can be before it is made smaller.
    """
    plans = run.plan.machines
    joining = [m for m in machines if plans[m.name].join_etcd]
    observed = run.session.observed
    stopped = [m for m in machines if m not in joining and not observed[m.name].runs(etcd.UNIT)]
    if stopped:
        _install(run, "etcd", {m: [_change(run, m, "etcd")] for m in stopped})
    for machine in joining:
        _join(run, machine)
    others = [m for m in machines if m not in joining and m not in stopped]
    # Without a quorum there is none to keep, and none of them gets well alone.
    for batch in [[m] for m in others] if run.plan.running or not others else [others]:
        with _drained(run, batch):
            _install(run, "etcd", {m: [_change(run, m, "etcd")] for m in batch})


@contextmanager
def _drained(run: Run, batch: Sequence[Machine]) -> Iterator[None]:
    """Stop apiservers in good order while the member that they use is restarted."""

    def restarts(machine: Machine) -> bool:
        plan = run.plan.machines[machine.name].components.get("etcd")
        return plan is not None and plan.restarts

    def systemctl(verb: str) -> None:
        for machine in mine:
            run.session.progress.update(machine.name, f"{verb} kube-apiserver")
            command = f"systemctl {verb} kube-apiserver.service"
            code, _, error = run.session.engine.shell(machine, command)
            if code != 0:
                raise PhaseError("etcd", [Failure(machine.name, command, error.strip()[-2000:])])

    mine = [m for m in batch if run.plan.running and m.is_master and m.has_etcd and restarts(m)]
    try:
        systemctl("stop")
        yield
    except BaseException:
        # Also at Ctrl-C: a member that comes back would have no apiserver until the next `up`.
        for machine in mine:
            with gevent.Timeout(_LAST_WORD, False), suppress(UnreachableError):
                run.session.engine.shell(machine, _START)
        raise
    systemctl("start")


def _one_after_the_other(run: Run, machines: tuple[Machine, ...]) -> None:
    """Everything but the kubelet, on one master after the other: requests find another meanwhile."""
    for machine in machines:
        with _drained(run, [machine]):
            changes = [_change(run, machine, name) for name in MASTER]
            _install(run, "control plane", {machine: changes})


def _join(run: Run, machine: Machine) -> None:
    session = run.session
    via = member_steps.healthy_member(session, but=machine.name)
    change = _change(run, machine, "etcd")
    if not session.observed[machine.name].etcd_data:
        expected = member_steps.add_learner(session, via, machine)
        files = (*change.files, etcd.join_file("existing", expected))
        # It may have been a member before, under the same name.
        change = replace(change, files=files, remove=(paths.ETCD_FORMED,))
    facts = session.facts(machine)
    health = desired(session.cluster, machine, run.trust, facts)["etcd"].health
    # A learner answers no linearizable read: that comes after its promotion.
    started = replace(change, health=member_steps.started(session.cluster, machine))
    _install(run, "etcd", {machine: [started]})
    member_steps.promote(session, via, machine)
    member_steps.seal(session, machine, health)


def _change(run: Run, machine: Machine, component: str) -> ComponentChange:
    """The planned change of a component, with its certificates issued and one-time files added."""
    machine_plan = run.plan.machines[machine.name]
    plan = machine_plan.components.get(component)
    if plan is None:
        return ComponentChange(component=component)
    extra: tuple[HostFile, ...] = ()
    remove: tuple[str, ...] = ()
    if component == "etcd" and machine_plan.form_etcd:
        founders = {m.name: etcd.peer_url(m) for m in run.session.cluster.etcd_members}
        extra = (etcd.join_file("new", founders),)
    if component == "kubelet" and machine_plan.register:
        extra = (_bootstrap_kubeconfig(run),)
        # With the old one it would not ask for another.
        remove = (node.KUBECONFIG, KUBELET_CLIENT)
    observed = run.session.observed[machine.name]
    return component_change(
        plan,
        tuple(outside.obtain(change.leaf, run.trust, observed, run.now) for change in plan.leaves),
        observed,
        run.session.cluster,
        run.trust,
        one_time=extra,
        remove=remove,
    )


def _firewall(run: Run, machines: tuple[Machine, ...]) -> None:
    """Change the rules so that they undo themselves unless a new connection gets through."""
    engine = run.session.engine

    def everywhere(step: Callable[[Machine], Failure | None]) -> list[Failure]:
        jobs = [gevent.spawn(step, machine) for machine in machines]
        gevent.joinall(jobs, raise_error=True)
        return [job.value for job in jobs if job.value]

    def arm(machine: Machine) -> Failure | None:
        code, _, error = engine.shell(machine, firewall.ARM)
        cause = error.strip()[-2000:]
        return Failure(machine.name, "a timer that undoes the rules", cause) if code else None

    def stay(machine: Machine) -> None:
        engine.shell(machine, firewall.STAY)

    def confirm(machine: Machine) -> Failure | None:
        step = "a new SSH connection"
        try:
            engine.connect_anew(machine)
            step = "enable the rules"
            code, _, cause = engine.shell(machine, firewall.CONFIRM)
            if code == 0:
                return None
        except UnreachableError as error:
            cause = error.message
        engine.shell(machine, f"{firewall.UNDO}; {firewall.DISARM}")
        return Failure(machine.name, step, cause.strip()[-2000:])

    if failures := everywhere(arm):
        everywhere(stay)
        hint = "no rule was changed; systemd has to run here, and to let units be disabled"
        raise PhaseError("firewall", failures, hint=hint)
    changes = {machine: [_unconfirmed(_change(run, machine, "firewall"))] for machine in machines}
    _install(run, "firewall", changes)
    if failures := everywhere(confirm):
        hint = "the rules are gone again; firewall.ssh_from must have the address you come from"
        raise PhaseError("firewall", failures, hint=hint)


def _unconfirmed(change: ComponentChange) -> ComponentChange:
    """The change without enabling anything; `restart` starts what does not run."""
    return replace(change, enable=(), start=(), restart=(*change.start, *change.restart))


def _bootstrap_kubeconfig(run: Run) -> HostFile:
    return HostFile(
        node.BOOTSTRAP,
        kubeconfig.by_token(
            server=haproxy.API,
            ca_path=Authority.KUBERNETES.cert_path,
            token=run.token,
            cluster_name=run.session.cluster.name,
        ),
        secret=True,
    )


def _objects(run: Run, machines: tuple[Machine, ...]) -> None:
    """Objects in the cluster: add-ons, access rules, and a token for nodes that join."""
    (leader,) = machines
    api = api_view(run.session.observed)
    applied = dict(api.applied) if api else {}
    plan = run.plan
    if plan.delete:
        _kubectl(run, leader, "delete", kubectl.delete_manifests(plan.delete, applied))
        applied = {k: v for k, v in applied.items() if k not in plan.delete}
    if any(p.register for p in plan.machines.values()):
        # Kubernetes' own alphabet for tokens is [a-z0-9].
        token_id, secret = secrets.token_hex(3), secrets.token_hex(8)
        manifest = kubectl.bootstrap_token(token_id, secret, run.now + TOKEN_LIFE)
        _kubectl(
            run, leader, "token for joining nodes", f"{kubectl.APPLY} -f - >/dev/null", manifest
        )
        run.token = f"{token_id}.{secret}"
    if plan.apply:
        _kubectl(run, leader, "apply", kubectl.apply_manifests(plan.apply, applied))
    run.session.progress.done(leader.name)


def _nodes(run: Run, machines: tuple[Machine, ...]) -> None:
    """Start kubelets and proxies; give the Nodes their roles; forget the token."""
    _components("nodes", "kubelet", "kube-proxy")(run, machines)
    leader = run.session.leader()
    changes = {m.name: c for m in machines if (c := run.plan.machines[m.name].node)}
    if changes:
        _kubectl(run, leader, "labels and taints", kubectl.mark_nodes(changes))
    if run.token:
        _kubectl(run, leader, "token", kubectl.forget_token(run.token.split(".")[0]))


def _remove(*, firewall: bool) -> Callable[[Run, tuple[Machine, ...]], None]:
    """Remove what is no longer wanted: the firewall, or all else."""

    def run_phase(run: Run, machines: tuple[Machine, ...]) -> None:
        def body(machine: Machine) -> None:
            remove_unwanted(removals=_removals(run, machine.name, firewall))

        run.session.engine.run("remove", body, machines, run.session.progress)

    return run_phase


def _ready(run: Run, machines: tuple[Machine, ...]) -> None:
    """All nodes Ready, and names are answered: what everything else needs."""
    leader = run.session.leader()
    names = [m.name for m in machines]
    _kubectl(run, leader, "nodes Ready", kubectl.wait_for_nodes(names, READY_TIMEOUT))
    _rolled_out(run, leader, [m for m in _deployed(run) if m.name == DNS])
    for name in names:
        run.session.progress.done(name)


def _addons(run: Run, machines: tuple[Machine, ...]) -> None:
    """The other add-ons; metrics-server is ready only after it has scraped every node twice."""
    (leader,) = machines
    _rolled_out(run, leader, [m for m in _deployed(run) if m.name != DNS])
    run.session.progress.done(leader.name)


def _deployed(run: Run) -> list[Manifest]:
    return [m for m in manifests(run.session.cluster, run.trust) if m.deployment]


def _rolled_out(run: Run, leader: Machine, wanted: list[Manifest]) -> None:
    # What was on a machine that is away comes back elsewhere after minutes, by Kubernetes' rules.
    if wanted and not run.plan.absent:
        names = [m.deployment for m in wanted]
        _kubectl(run, leader, "add-ons", kubectl.wait_for_deployments(names, READY_TIMEOUT))


def _offer(run: Run, machines: tuple[Machine, ...]) -> None:
    """What machines that join by themselves are to run; the masters have been told to let them in."""
    session, bundle = run.session, run.bundle
    if bundle is None or not isinstance(session.source, Cloud):
        return
    files = {ready.pin: compressed(ready) for ready in bundle.artifacts}
    session.source.offer(session.draft, bundle.program, files, session.progress)
    session.progress.done(machines[0].name)


def _verify(run: Run, machines: tuple[Machine, ...]) -> None:
    # The leader's answer counts too, and a pod there is somebody to talk to.
    verify(run.session, {*run.plan.machines, run.session.leader().name})


def _kubectl(run: Run, leader: Machine, step: str, command: str, stdin: bytes = b"") -> None:
    code, _, error = api_client.run(run.session, leader, command, stdin)
    if code != 0:
        cause = error.strip()[-2000:]
        raise PhaseError(
            step,
            [Failure(leader.name, f"kubectl: {step}", cause)],
            hint="run the same command again: it goes on where it stopped",
        )


SERVICES = ("host", "containerd", "registry", "haproxy", "pod-network", "certificates")
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
BESIDE_IT = ("keepalived", "vpc-routes", "group", "cloud-controller", "manifests", "backup")
MASTER = (*SERVICES, "etcd", *CONTROL_PLANE, *BESIDE_IT)

UP: tuple[Phase, ...] = (
    Phase("packages", "from the distribution", _lacking_packages, _packages),
    # Before artifacts, which new machines fetch from the others.
    Phase("firewall", "what comes in", _changing("firewall"), _firewall),
    Phase(
        "no firewall",
        "it is no longer wanted",
        _removing(firewall=True),
        _remove(firewall=True),
    ),
    Phase("artifacts", "binaries and images to the machines", _lacking_artifacts, _artifacts),
    Phase(
        "services",
        "container runtime, proxies and routes",
        _changing(*SERVICES),
        _components("services", *SERVICES),
    ),
    Phase(
        "etcd",
        "the cluster's memory",
        _changing_etcd,
        _etcd,
    ),
    Phase(
        "control plane",
        "apiservers, controllers, schedulers",
        _changing(*CONTROL_PLANE, *BESIDE_IT),
        _components("control plane", *CONTROL_PLANE, *BESIDE_IT, rolling=True),
    ),
    Phase("objects", "access rules and add-ons", _applying, _objects),
    Phase("nodes", "kubelets and proxies", _joining, _nodes),
    # What takes its place runs, and what it had made in the cluster is deleted.
    Phase("remove", "what is no longer wanted", _removing(firewall=False), _remove(firewall=False)),
    Phase("ready", "nodes Ready, names answered", _all_nodes, _ready),
    Phase("verify", "names, pods and Services, from every node", _all_nodes, _verify),
    Phase("add-ons", "rolled out", _leader, _addons),
    Phase("group", "what workers that join by themselves are given", _offering, _offer),
)

RENEW: tuple[Phase, ...] = (
    Phase(
        "control plane",
        "one machine after the other",
        _changing_control_plane,
        _one_after_the_other,
    ),
    Phase(
        "services",
        "the other nodes' runtimes and proxies",
        _changing_elsewhere,
        _components("services", *SERVICES),
    ),
    Phase("objects", "access rules, and a token for kubelets", _applying, _objects),
    Phase("nodes", "kubelets and proxies", _joining, _nodes),
    Phase("ready", "nodes Ready, names answered", _all_nodes, _ready),
)

__all__ = ["RENEW", "UP", "Phase", "Run", "execute"]
