"""Checks of `extra_args`: flags that a program would refuse, ignore, or use against other settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import chain

from provision.artifacts.catalogue import catalogue
from provision.desired import proxy_flags
from provision.inventory import rules
from provision.inventory.removed import known_flags, removed
from provision.inventory.reserved import REPLACED, RESERVED
from provision.inventory.wording import show
from provision.model import ports
from provision.model.cluster import Settings
from provision.model.errors import Finding
from provision.model.settings.network import KUBELET_PODS

# With more bits the node's part of the pod network is wider than kube-controller-manager allows.
_NODE_BITS = 16


def settings(given: Settings, broken: frozenset[str]) -> Iterator[Finding]:
    """Check each flag, and the flags that must agree with other settings.

    Args:
        given: the settings, with absolute paths.
        broken: dotted names of wrong fields, which now have their defaults.
    """
    return chain(_flags(given), _pods_of_a_node(given, broken), _node_ports(given))


def _flags(given: Settings) -> Iterator[Finding]:
    for component, flags in given.extra_args.items():
        for flag, value in flags.items():
            where = f"cluster.extra_args.{component}.{flag}"
            bare = flag.lstrip("-")
            if reason := RESERVED.get(component, {}).get(bare):
                yield Finding(where, "clusterctl sets this flag", reason)
            elif flag != bare:
                yield Finding(where, "the name of the flag begins with a dash", f"write {bare!r}")
            elif not rules.is_flag(flag):
                yield Finding(
                    where, f"{show(flag)} is not the name of a flag", "write a name such as 'v'"
                )
            elif lacking := ", ".join(_lacking(given.kubernetes, component, bare, value)):
                what = f"{component} of Kubernetes {given.kubernetes} does not have {lacking}"
                yield Finding(where, what, "leave it out; the component would not start")
            elif hint := _unknown(given.kubernetes, component, bare):
                what = f"--help of {component} {given.kubernetes} does not name this flag"
                yield Finding(where, what, hint, fatal=False)
            elif setting := REPLACED.get(component, {}).get(bare):
                hint = "leave the flag out, if the setting is enough"
                what = f"the flag overrides the values that follow from {setting}"
                yield Finding(where, what, hint, fatal=False)
            if component == "kube-proxy" and bare not in RESERVED[component]:
                mode = given.networks.proxy_mode
                if ignored := proxy_flags.without_effect(mode, bare, value):
                    yield Finding(where, *ignored)


def _pods_of_a_node(given: Settings, broken: frozenset[str]) -> Iterator[Finding]:
    """Check that a node has an address for each pod that its kubelet accepts."""
    if given.networks.plugin != "routed" or "networks.node_prefix" in broken:
        return
    share, room = given.networks.node_prefix, given.networks.pods_of_a_node
    if not 0 < room < 2**_NODE_BITS:
        return  # node_prefix is out of range, which has its own finding
    flag = given.extra_args.get("kubelet", {}).get("max-pods")
    where = "cluster.extra_args.kubelet.max-pods"
    fits = f"`node_prefix` {share} gives a node {room} addresses"
    if flag is None:
        if room < KUBELET_PODS:
            what = f"a node runs at most {room} pods, not {KUBELET_PODS}: {fits}"
            hint = f'choose a smaller `node_prefix`, or write "max-pods": "{room}" in extra_args'
            yield Finding("cluster.networks.node_prefix", what, hint, fatal=False)
    elif not flag.isdecimal() or int(flag) == 0:
        yield Finding(where, f"{show(flag)} is not a number of pods", f"write 1 to {room}")
    elif int(flag) > room:
        hint = f"write {room} at most; a new cluster may have a smaller `node_prefix`"
        yield Finding(where, f"{fits} for {flag} pods", hint)


_NODE_PORT_RANGE = re.compile(r"([0-9]{1,5})([-+])([0-9]{1,5})")


def _node_ports(given: Settings) -> Iterator[Finding]:
    """Check that no NodePort can take a port of the cluster's own programs."""
    text = given.extra_args.get("kube-apiserver", {}).get("service-node-port-range")
    where = "cluster.extra_args.kube-apiserver.service-node-port-range"
    if text is None:
        return
    found = _NODE_PORT_RANGE.fullmatch(text)
    first = int(found[1]) if found else 0
    last = (int(found[3]) + (first if found[2] == "+" else 0)) if found else 0
    if not 0 < first <= last <= 65535:
        yield Finding(where, f"{show(text)} is not a range of ports", "write FIRST-LAST")
        return
    own = sorted({n for n in vars(ports).values() if isinstance(n, int) and first <= n <= last})
    if own:
        what = f"{show(text)} contains ports of the cluster: {', '.join(map(str, own))}"
        yield Finding(where, what, "choose a range without them, such as 30000-32767")


def _unknown(kubernetes: str, component: str, flag: str) -> str:
    """Give a hint for a flag that is probably misspelt; empty if it is known."""
    known = known_flags(kubernetes.rpartition(".")[0]).get(component)
    name = flag.replace("_", "-")
    if not known or name in known:
        return ""
    near = get_close_matches(name, known, 1)
    return (
        f"did you mean {near[0]!r}?"
        if near
        else "the component does not start with an unknown flag"
    )


def _lacking(kubernetes: str, component: str, flag: str, value: str) -> Iterator[str]:
    """Name what the version lacks. An unknown version has its own finding."""
    if kubernetes in catalogue().versions:
        yield from removed(kubernetes, component, flag, value)
