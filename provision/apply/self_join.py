"""The bundle of a worker that joins by itself: one bash program, and the artifacts it names. Pure.

The program has the same parts that `up` runs on a worker: packages, artifacts, one for each
component. A worker of an Auto Scaling group finds out its name and address itself: the files have
NAME and ADDRESS in their place. The program has no secret. The worker gets its kubelet's
certificate with a token. With that certificate it asks for the others, which replace those that it
has signed itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address
from shlex import join, quote

from provision.apply import install
from provision.apply.delivery_programs import Want, program
from provision.apply.make_change import component_change
from provision.apply.operations.deliver import COMMAND
from provision.artifacts.model import ArtifactSet, Ready
from provision.desired.catalog import desired
from provision.desired.components import haproxy, node
from provision.desired.packages import APT_INSTALL, own_units
from provision.desired.render import render
from provision.model import paths
from provision.model.cluster import Cluster, Machine, Role, Ssh
from provision.model.distribution import Family
from provision.model.facts import Facts
from provision.model.observed import Observed, ObservedFile
from provision.pki import kubeconfig
from provision.pki.authority import Authority
from provision.pki.leaf import WORDS, Leaf
from provision.pki.table import KUBELET_CLIENT
from provision.pki.trust import Trust
from provision.plan.machine import plan_machine
from provision.plan.quorum import Standing

NAME = "name-of-the-instance"
ADDRESS = "192.0.2.1"
TOKEN = "token-of-the-day"  # noqa: S105  a placeholder
_FILL = (
    f'find "$work" -type f -exec sed -i "s/{NAME}/$name/g; '
    f's/{re.escape(ADDRESS)}/$address/g" {{}} +'
)


@dataclass(frozen=True)
class Bundle:
    """Everything that workers which join by themselves need.

    Attributes:
        program: bash.
        artifacts: those that the program does not download from their publishers.
    """

    program: bytes = field(repr=False)
    artifacts: tuple[Ready, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.program).hexdigest()


def bundle(cluster: Cluster, trust: Trust, facts: Facts, artifacts: ArtifactSet) -> Bundle:
    """Make the bundle of a worker that clusterctl has not looked at.

    Args:
        facts: of a machine made from the same image, with the worker's architecture.
        artifacts: all that a worker needs.

    Raises:
        KeyError: the set lacks an artifact.
    """
    worker = _worker()
    states = desired(cluster, worker, trust, facts)
    leaves = [leaf for state in states.values() for leaf in state.leaves]
    nothing = _unseen(facts, leaves)
    never = datetime.fromtimestamp(0, UTC)
    plan = plan_machine(
        cluster, worker, trust, nothing, artifacts, never, etcd=Standing.MEMBER, nodes=None
    )
    changes = [
        component_change(component, (), nothing, cluster, trust)
        for component in plan.components.values()
    ]
    items = [(artifacts.get(b.artifact, facts.arch), b) for b in plan.binaries]
    wants = tuple((ready, Want(b.artifact, b.path, facts.arch)) for ready, b in items)
    local = tuple(dict.fromkeys(ready for ready, _ in items if ready.local))
    bootstrap = kubeconfig.by_token(
        server=haproxy.API,
        ca_path=Authority.KUBERNETES.cert_path,
        token=TOKEN,
        cluster_name=cluster.name,
    )
    text = render(
        "join/join.j2",
        cluster=cluster.name,
        debian=facts.distribution.family is Family.DEBIAN,
        packages=join(plan.packages),
        install=quote(APT_INSTALL),
        others=join(own_units(plan.packages)),
        state=paths.STATE,
        artifacts=paths.ARTIFACTS,
        pins=[ready.pin for ready in local],
        take=quote(program(wants, paths.ARTIFACTS, cluster.proxy)),
        run=COMMAND,
        provisional=list(_provisional(leaves)),
        bring=quote(install.command(prepare=_FILL)),
        components=[(change.component, install.payload((change,))) for change in changes],
        client=KUBELET_CLIENT,
        bootstrap=node.BOOTSTRAP,
        token=TOKEN,
        kubeconfig=quote(bootstrap.decode()),
    )
    return Bundle(text, local)


def _worker() -> Machine:
    address, roles = IPv4Address(ADDRESS), frozenset({Role.WORKER})
    return Machine(name=NAME, address=address, roles=roles, ssh=Ssh(hostname=ADDRESS))


def _unseen(facts: Facts, leaves: Iterable[Leaf]) -> Observed:
    """A new machine, with keys for these leaves.

    So its record says that the cluster has not signed certificates for these keys yet.
    """
    keys = {
        leaf.key_path: ObservedFile(leaf.key_path, "file", 0o600, leaf.owner, leaf.group, 0)
        for leaf in leaves
    }
    return Observed(NAME, facts=facts, files=keys)


def _provisional(leaves: list[Leaf]) -> Iterator[str]:
    """Arguments of the program's `provisional`: CERTIFICATE KEY SUBJECT USAGES [NAMES]."""
    for leaf in leaves:
        subject = "".join(f"/O={o}" for o in leaf.organizations) + f"/CN={leaf.common_name}"
        usages = ",".join(WORDS[usage] for usage in sorted(leaf.usages))
        names = ",".join((*(f"DNS:{n}" for n in leaf.dns), *(f"IP:{a}" for a in leaf.addresses)))
        words = (leaf.cert_path, leaf.key_path, subject, usages, *((names,) if names else ()))
        yield join(words).replace(NAME, '"$name"').replace(ADDRESS, '"$address"')
