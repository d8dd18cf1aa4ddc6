"""Components, as phases install them: the components of each phase, and how a change is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from provision.apply.change import ComponentChange
from provision.apply.deploys import install_components
from provision.apply.make_change import component_change
from provision.apply.phases.run import Run, Work
from provision.desired.catalog import in_phase
from provision.desired.components import etcd, haproxy, node
from provision.desired.model import ComponentPhase, HostFile
from provision.model.cluster import Machine
from provision.pki import kubeconfig
from provision.pki.authority import Authority
from provision.pki.table import KUBELET_CLIENT
from provision.plan import external_authority

SERVICES = in_phase(ComponentPhase.SERVICES)
CONTROL_PLANE = in_phase(ComponentPhase.CONTROL_PLANE)
MASTER = in_phase(ComponentPhase.SERVICES, ComponentPhase.ETCD, ComponentPhase.CONTROL_PLANE)
NODE = in_phase(ComponentPhase.NODES)


def changing(*components: str) -> Callable[[Run], tuple[str, ...]]:
    """The machines on which one of these components changes."""
    return lambda run: run.plan.touching(*components)


def components(*names: str, rolling: bool = False) -> Callable[[Work], None]:
    """Put these components' files in place and start their units, on all machines at once.

    Args:
        rolling: one machine after the other if the cluster is already running.
    """

    def run_phase(work: Work) -> None:
        one_by_one = rolling and work.plan.running
        for batch in [(m,) for m in work.machines] if one_by_one else [work.machines]:
            install(work, {m: [change(work.run, m, name) for name in names] for m in batch})

    return run_phase


def install(work: Work, changes: Mapping[Machine, Sequence[ComponentChange]]) -> None:
    """Carry out changes of components, on all these machines at once.

    Raises:
        PhaseError: with every machine that failed.
    """

    def body(machine: Machine) -> None:
        install_components(changes=changes[machine])

    work.on(body, tuple(changes))


def change(run: Run, machine: Machine, component: str) -> ComponentChange:
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
        # With its old kubeconfig the kubelet would not ask for a new certificate.
        remove = (node.KUBECONFIG, KUBELET_CLIENT)
    observed = run.look[machine.name]
    return component_change(
        plan,
        tuple(
            external_authority.obtain(change.leaf, run.trust, observed, run.now)
            for change in plan.leaves
        ),
        observed,
        run.session.cluster,
        run.trust,
        one_time=extra,
        remove=remove,
    )


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
