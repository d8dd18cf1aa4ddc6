"""Flags and feature gates that a version of Kubernetes has, and that it no longer has.

A component does not start with one of them. Sources: CHANGELOG-1.37.md of Kubernetes, and a comparison of
`--help` of 1.36.3 and 1.37.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files as resources

import yaml

# Minor version that first lacks them -> component -> flags.
FLAGS: Mapping[int, Mapping[str, frozenset[str]]] = {
    37: {
        "kubelet": frozenset(
            {
                "application-metrics-count-limit",
                "boot-id-file",
                "container-hints",
                "containerd",
                "containerd-namespace",
                "enable-load-reader",
                "event-storage-age-limit",
                "event-storage-event-limit",
                "global-housekeeping-interval",
                "log-cadvisor-usage",
                "machine-id-file",
                "storage-driver-buffer-duration",
                "storage-driver-db",
                "storage-driver-host",
                "storage-driver-password",
                "storage-driver-secure",
                "storage-driver-table",
                "storage-driver-user",
            }
        ),
        "kube-controller-manager": frozenset({"concurrent-service-syncs"}),
        "kube-proxy": frozenset({"boot-id-file", "machine-id-file"}),
    }
}
# Minor version that first lacks them -> feature gates, of any component.
GATES: Mapping[int, frozenset[str]] = {
    37: frozenset(
        {
            "APIServerTracing",
            "AnonymousAuthConfigurableEndpoints",
            "AnyVolumeDataSource",
            "AuthorizeNodeWithSelectors",
            "AuthorizeWithSelectors",
            "BtreeWatchCache",
            "ConsistentListFromCache",
            "GangScheduling",
            "JobBackoffLimitPerIndex",
            "JobPodReplacementPolicy",
            "JobSuccessPolicy",
            "LogarithmicScaleDown",
            "OrderedNamespaceDeletion",
            "PodLifecycleSleepAction",
            "PodLifecycleSleepActionAllowZero",
            "PreventStaticPodAPIReferences",
            "RelaxedDNSSearchValidation",
            "ResilientWatchCacheInitialization",
            "RetryGenerateName",
            "SchedulerQueueingHints",
            "SidecarContainers",
            "StreamingCollectionEncodingToJSON",
            "StreamingCollectionEncodingToProtobuf",
            "StructuredAuthenticationConfiguration",
            "WorkloadAwarePreemption",
        }
    )
}


def removed(kubernetes: str, component: str, flag: str, value: str) -> Iterator[str]:
    """Name what this version lacks: the flag, or feature gates in its value.

    Args:
        kubernetes: a version of the catalogue, `1.37.1`.
        flag: without dashes; cAdvisor's flags may have underscores.
        value: of the flag.
    """
    minor = int(kubernetes.split(".")[1])
    name = flag.replace("_", "-")
    if any(name in of.get(component, ()) for since, of in FLAGS.items() if since <= minor):
        yield f"the flag --{name}"
    if name == "feature-gates" and component != "etcd":
        gone = frozenset().union(*(gates for since, gates in GATES.items() if since <= minor))
        named = {gate.partition("=")[0].strip() for gate in value.split(",")}
        yield from (f"the feature gate {gate}" for gate in sorted(named & gone))


@cache
def known_flags(minor: str) -> Mapping[str, frozenset[str]]:
    """Give component -> the flags that its `--help` names; empty if they are not known.

    Args:
        minor: `1.37`.
    """
    file = resources(__package__) / "flags" / f"{minor}.yaml"
    if not file.is_file():
        return {}
    return {
        name: frozenset(flags.split()) for name, flags in yaml.safe_load(file.read_text()).items()
    }
