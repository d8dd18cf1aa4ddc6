"""Check from every node that the running cluster works.

Every apiserver is ready, etcd is healthy and has exactly the members of the inventory, all Nodes
are Ready, a name is resolved in a pod, pods reach pods on other nodes, and a Service's address
answers from every node.
"""

from __future__ import annotations

import json
import secrets
import shlex
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface

import gevent

from provision.apply import kubectl
from provision.apply.checked import failure
from provision.apply.session import Session
from provision.artifacts import images
from provision.desired.components import pod_network
from provision.desired.components.control_plane import KUBECTL, OWN_API
from provision.desired.render import render
from provision.local import changes
from provision.local.progress import Progress
from provision.model.cluster import Cluster, Machine
from provision.model.commands import clusterctl
from provision.model.errors import Failure, PhaseError
from provision.model.look import Look
from provision.model.observed import NodeView, Observed, PodNetwork, api_view

# After an outage of the API, CoreDNS and kube-proxy learn of a new Service when they have connected
# again. client-go pauses for up to 60 s between two tries, jitter counted, and the first try may be
# refused, because a new apiserver does not know the access rules yet.
PATIENCE = 135  # seconds
REST = 30  # seconds until a remaining problem is a failure
PODS_TIMEOUT = 120  # seconds, including the pull of an image


@dataclass(frozen=True)
class Pod:
    name: str
    node: str
    address: str


def verify(
    session: Session, names: Collection[str] | None = None, progress: Progress | None = None
) -> None:
    """Check the machines' own answers, then try names, pods and Services; takes some seconds.

    Args:
        names: of the machines to check; None: all.
        progress: shows the nodes that work; None: the session's progress does.

    Raises:
        PhaseError: naming each thing that does not work, and where.
    """
    look, failures = _look(session, names)
    nodes = tuple(m for m in session.cluster.nodes if m.name in look)
    if not failures:
        changes.begin(f"the test's pods in {session.cluster.name}")
        failures = _try_pods(session, look.leader(), nodes)
    if failures:
        raise PhaseError(
            "verify",
            failures,
            hint=f"{clusterctl('status', session.cluster.inventory)} shows each component",
        )
    for machine in nodes:
        (progress or session.progress).done(machine.name)


def verify_alone(session: Session) -> None:
    """`verify`, shown as a phase of its own.

    Raises:
        PhaseError: see `verify`.
    """
    names = tuple(m.name for m in session.cluster.nodes)
    with session.progress.phase("verify", "names, pods and Services, from every node", names):
        verify(session)


def _look(session: Session, names: Collection[str] | None) -> tuple[Look, list[Failure]]:
    """Look until nothing is wrong, or for `REST` seconds: new programs may be slow to answer."""
    deadline = time.monotonic() + REST
    while True:
        look = session.observe(names)
        failures = judge(session.cluster, look)
        if not failures or time.monotonic() > deadline:
            return look, failures
        gevent.sleep(0.3)


def judge(cluster: Cluster, observed: Mapping[str, Observed]) -> list[Failure]:
    """What is wrong according to the machines' own answers. Pure.

    Args:
        observed: name -> what its probe found, of the machines that are checked: all, or some.
    """
    failures = [
        Failure(name, "reach the machine", view.error)
        for name, view in observed.items()
        if not view.reachable
    ]
    there = {name: view for name, view in observed.items() if view.reachable}
    for machine in cluster.masters:
        if machine.name not in there:
            continue
        api = there[machine.name].api
        if api is None or not api.ready:
            cause = "is not running" if api is None else api.error or "is not ready"
            failures.append(Failure(machine.name, "kube-apiserver", cause))
    wanted = {m.name for m in cluster.etcd_members}
    for machine in cluster.etcd_members:
        if machine.name not in there:
            continue
        view = there[machine.name].etcd
        if view is None or not view.healthy:
            cause = "is not running" if view is None else view.error or "has no quorum"
            failures.append(Failure(machine.name, "etcd", cause))
            continue
        members = {member.name for member in view.members}
        learners = sorted(member.name for member in view.members if member.learner)
        # `recover` may have given up an unreachable machine: it is no member until it is replaced.
        if members - wanted or (wanted & there.keys()) - members:
            cause = f"members are {sorted(members)}, the inventory has {sorted(wanted)}"
            failures.append(Failure(machine.name, "etcd", cause))
        if learners:
            failures.append(Failure(machine.name, "etcd", f"only learners: {learners}"))
    api = api_view(observed)
    if api is not None:
        nodes = {node.name: node for node in api.nodes}
        for machine in cluster.nodes:
            if machine.name not in observed:
                continue
            node = nodes.get(machine.name)
            if node is None or not node.ready:
                cause = "has not registered" if node is None else "is not Ready"
                failures.append(Failure(machine.name, "Node", cause))
        failures += _judge_pods(cluster, there, nodes)
    return failures


def _judge_pods(
    cluster: Cluster, there: Mapping[str, Observed], nodes: Mapping[str, NodeView]
) -> list[Failure]:
    """Find nodes whose pod network differs from the API's, or that lack a route to other pods."""
    failures: list[Failure] = []
    if cluster.networks.plugin != "routed":
        return failures
    networks = {
        name: node.pod_cidr for name, node in nodes.items() if name in there and node.pod_cidr
    }
    for name, wanted in networks.items():
        pods = there[name].pods
        if pods is None:
            continue
        if pods.cidr != wanted:
            cause = f"new pods get addresses of {pods.cidr}, and the Node has {wanted}"
            failures.append(Failure(name, "pod network", cause))
        elif pods.bridge and str(ip_interface(pods.bridge).network) != wanted:
            cause = f"pods have addresses of {pods.bridge}, and the Node has {wanted}"
            failures.append(Failure(name, "pod network", cause))
        elif cluster.networks.mtu and pods.mtu != str(cluster.networks.mtu):
            cause = (
                f"new pods get an MTU of {pods.mtu}, and the inventory has {cluster.networks.mtu}"
            )
            failures.append(Failure(name, "pod network", cause))
        if pods.unmapped:
            cause = (
                f"nftables has no rules for the hostPort of {', '.join(pods.unmapped)}: "
                f"journalctl -u {pod_network.POD_CIDR}"
            )
            failures.append(Failure(name, "hostPort", cause))
        if cluster.source.routes_pods:
            continue
        missing = sorted(
            f"{other} ({_neighbour(cluster, other, pods)})"
            for other, cidr in networks.items()
            if other != name and there[other].pods and cidr not in pods.routes
        )
        if missing:
            cause = (
                f"it has no route to the pods of {', '.join(missing)}: "
                f"birdc -s {pod_network.SOCKET} show ospf neighbors"
            )
            failures.append(Failure(name, "routes to pods", cause))
    return failures


def _neighbour(cluster: Cluster, other: str, pods: PodNetwork) -> str:
    state = pods.neighbours.get(str(cluster.machine(other).address))
    return f"OSPF neighbour in the state {state}" if state else "no OSPF neighbour"


def _try_pods(session: Session, leader: Machine, nodes: tuple[Machine, ...]) -> list[Failure]:
    # Every run has its own name: a run that was killed may have left its namespace behind.
    namespace = f"clusterctl-verify-{secrets.token_hex(3)}"
    command = f"{KUBECTL} -n {namespace}"
    content = render(
        "manifests/verify.yaml.j2",
        namespace=namespace,
        image=images.refs()["agnhost"],
        nodes=[machine.name for machine in nodes],
    )
    start = (
        # Delete the namespaces of runs that were killed.
        f"set -e; {KUBECTL} delete namespace --wait=false "
        f"-l clusterctl/verify,clusterctl/verify!={namespace} >/dev/null; "
        f"{KUBECTL} apply --server-side --force-conflicts -f - >/dev/null; "
        f"{command} rollout status daemonset/verify --timeout={PODS_TIMEOUT}s >/dev/null || "
        f"{{ {command} get pods -o wide; {command} get events "
        "--field-selector type=Warning -o custom-columns=:.involvedObject.name,:.message "
        "| tail -n 5; exit 1; } >&2; "
        f"{command} get pods -o json; echo; echo ---; {command} get service verify -o json"
    )
    try:
        answer = kubectl.run(session, leader, start, content)
        if problem := failure(answer, leader, "pods that answer on every node"):
            return [problem]
        pods_json, service_json = answer[1].split("\n---\n")
        pods = _pods(pods_json)
        service = json.loads(service_json)["spec"]["clusterIP"]
        dialled = _dial(session, leader, namespace, pods, service)
        return dialled + _from_nodes(session, nodes, service)
    finally:
        session.engine.shell(
            leader, f"{KUBECTL} delete namespace {namespace} --wait=false --ignore-not-found"
        )


def _pods(text: str) -> tuple[Pod, ...]:
    return tuple(
        Pod(item["metadata"]["name"], item["spec"]["nodeName"], item["status"]["podIP"])
        for item in json.loads(text)["items"]
        if item["status"].get("podIP") and not item["metadata"].get("deletionTimestamp")
    )


def _dial(
    session: Session, leader: Machine, namespace: str, pods: tuple[Pod, ...], service: str
) -> list[Failure]:
    """Try from every pod: a name, the Service, and a pod on the next node."""
    domain = session.cluster.networks.domain
    name = f"verify.{namespace}.svc.{domain}"
    tries: list[tuple[Pod, str, str, int]] = []
    for index, pod in enumerate(pods):
        other = pods[(index + 1) % len(pods)]
        tries.append((pod, f"the name {name}, from a pod", name, 80))
        tries.append((pod, f"the Service {service}, from a pod", service, 80))
        tries.append((pod, f"a pod on {other.node}, from a pod", other.address, 8080))
    lines = [f"d=$(mktemp -d); end=$(($(date +%s) + {PATIENCE}))"]
    for number, (pod, _, host, port) in enumerate(tries):
        path = (
            f"/api/v1/namespaces/{namespace}/pods/{pod.name}:8080/proxy/dial"
            f"?host={host}&port={port}&protocol=http&request=hostname&tries=1"
        )
        get = f"{KUBECTL} --server={OWN_API} get --raw {shlex.quote(path)}"
        lines.append(
            f"until {get} >$d/{number} 2>&1; grep -q responses $d/{number} || "
            '[ "$(date +%s)" -ge "$end" ]; do sleep 0.3; done &'
        )
        # More at once would be too much for a small machine.
        if number % 8 == 7:
            lines.append("wait")
    lines.append(f'wait; for i in $(seq 0 {len(tries) - 1}); do tr -d "\\n" <$d/$i; echo; done')
    lines.append("rm -rf $d")
    _, out, _ = session.engine.shell(leader, "\n".join(lines))
    answers = out.splitlines()
    failures = []
    for (pod, what, _, _), answer in zip(tries, answers, strict=False):
        try:
            good = bool(json.loads(answer).get("responses"))
        except (ValueError, AttributeError):
            good = False
        if not good:
            failures.append(Failure(pod.node, what, answer[:500]))
    return failures


def _from_nodes(session: Session, nodes: tuple[Machine, ...], service: str) -> list[Failure]:
    """Try the Service's address from every node itself."""
    command = f"timeout 5 bash -c 'exec 3<>/dev/tcp/{service}/80' && echo open || echo closed"
    fetched = session.engine.fetch(lambda _: command, nodes)
    return [
        Failure(name, f"the Service {service}, from the node", seen.error or "no connection")
        for name, seen in fetched.items()
        if "open" not in seen.output
    ]
