"""Rules of nftables, one for each part of the kernel that the cluster's rules need.

The sources: clusterctl's own rules (`templates/firewall`, `templates/pod-network`), those of the CNI
plug-in portmap, and those of kube-proxy in its mode nftables.
"""

from __future__ import annotations

from provision.model.cluster import Cluster, Machine

_BASE = "type filter hook input priority 0"
_TO = "type nat hook prerouting priority -100"
_FROM = "type nat hook postrouting priority 100"


def _rule(family: str, chain: str, rule: str = "") -> str:
    rule = f"{rule}; " if rule else ""
    # nft tries the rules together, so each rule needs its own chain.
    name = f"c{sum((chain + rule).encode())}"
    return f"table {family} clusterctl-check {{ chain {name} {{ {chain}; {rule}}}; }}"


_FIREWALL = {
    "NF_TABLES_INET": _rule("inet", _BASE),
    "nft_ct": _rule("inet", _BASE, "ct state established accept"),
    "nft_reject_inet": _rule("inet", _BASE, "reject"),
}
_NODE = {
    "NF_TABLES_IPV4": _rule("ip", _BASE),
    "nft_chain_nat": _rule("ip", _FROM),
    "nft_masq": _rule("ip", _FROM, "masquerade"),
    "nft_nat": _rule("ip", _TO, "meta l4proto tcp dnat to 192.0.2.1:80"),
    "nft_fib_ipv4": _rule("ip", _TO, "fib daddr type local accept"),
}
_KUBE_PROXY = {
    "nft_ct": _rule("ip", _BASE, "ct state new accept"),
    "nft_reject_ipv4": _rule("ip", _BASE, "reject"),
    "nft_numgen": _rule("ip", _TO, "numgen random mod 2 vmap { 0 : accept, 1 : return }"),
}


def rules(cluster: Cluster, machine: Machine) -> dict[str, str]:
    """Give the rules that a machine's kernel must take.

    Returns:
        Name of the kernel's module (or of its option, in capitals) -> the rule, on one line.
    """
    found: dict[str, str] = {}
    if machine.is_node:
        by_proxy = cluster.networks.proxy_mode == "nftables"
        if by_proxy or cluster.networks.plugin == "routed":
            found |= _NODE
        if by_proxy:
            found |= _KUBE_PROXY
    if cluster.firewall.enabled:
        found |= _FIREWALL
    return found
