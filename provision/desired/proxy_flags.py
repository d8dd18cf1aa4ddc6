"""kube-proxy's flags as fields of its configuration file.

With `--config`, kube-proxy ignores its flags, except those for logging. Source: `AddFlags`,
`Complete` and `processV1Alpha1Flags` in cmd/kube-proxy/app/options.go of Kubernetes 1.37.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

# kube-proxy uses these flags even with `--config`.
LOGGING = frozenset(
    {
        "log-flush-frequency",
        "log-json-info-buffer-size",
        "log-json-split-stream",
        "log-text-info-buffer-size",
        "log-text-split-stream",
        "logging-format",
        "v",
        "vmodule",
    }
)


def _switch(value: str) -> bool:
    # The spellings of Go's strconv.ParseBool.
    if value in {"1", "t", "T", "true", "TRUE", "True"}:
        return True
    if value in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise ValueError(value)


def _duration(value: str) -> str:
    if not re.fullmatch(r"0|([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+", value):
        raise ValueError(value)
    return "0s" if value == "0" else value


def _list(value: str) -> list[str]:
    return [item for item in value.split(",") if item]


def _gates(value: str) -> dict[str, bool]:
    pairs = (gate.strip().partition("=") for gate in value.split(",") if gate.strip())
    return {name.strip(): _switch(state.strip()) for name, _, state in pairs}


_WORDS: Mapping[Callable[[str], Any], str] = {
    int: "a whole number",
    float: "a number",
    _switch: "true or false",
    _duration: "a duration such as 30s",
    _gates: "NAME=true,NAME=false",
}

# Flag -> field, and the reader of its value. MODE is `nftables` or `iptables`, the mode in use.
_FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "bind-address": ("bindAddress", str),
    "bind-address-hard-fail": ("bindAddressHardFail", _switch),
    "config-sync-period": ("configSyncPeriod", _duration),
    "conntrack-max-per-core": ("conntrack.maxPerCore", int),
    "conntrack-min": ("conntrack.min", int),
    "conntrack-tcp-be-liberal": ("conntrack.tcpBeLiberal", _switch),
    "conntrack-tcp-timeout-close-wait": ("conntrack.tcpCloseWaitTimeout", _duration),
    "conntrack-tcp-timeout-established": ("conntrack.tcpEstablishedTimeout", _duration),
    "conntrack-udp-timeout": ("conntrack.udpTimeout", _duration),
    "conntrack-udp-timeout-stream": ("conntrack.udpStreamTimeout", _duration),
    "detect-local-mode": ("detectLocalMode", str),
    "feature-gates": ("featureGates", _gates),
    "iptables-localhost-nodeports": ("iptables.localhostNodePorts", _switch),
    "iptables-masquerade-bit": ("iptables.masqueradeBit", int),
    "iptables-min-sync-period": ("MODE.minSyncPeriod", _duration),
    "iptables-sync-period": ("MODE.syncPeriod", _duration),
    "kube-api-burst": ("clientConnection.burst", int),
    "kube-api-content-type": ("clientConnection.contentType", str),
    "kube-api-qps": ("clientConnection.qps", float),
    "masquerade-all": ("MODE.masqueradeAll", _switch),
    "metrics-bind-address": ("metricsBindAddress", str),
    "nodeport-addresses": ("nodePortAddresses", _list),
    "oom-score-adj": ("oomScoreAdj", int),
    "pod-bridge-interface": ("detectLocal.bridgeInterface", str),
    "pod-interface-name-prefix": ("detectLocal.interfaceNamePrefix", str),
    "profiling": ("enableProfiling", _switch),
    "show-hidden-metrics-for-version": ("showHiddenMetricsForVersion", str),
}
FLAGS = frozenset(_FIELDS)


def without_effect(mode: str, flag: str, value: str) -> tuple[str, str] | None:
    """Say why kube-proxy would not use a flag, and what to do; None: it uses the flag.

    Args:
        mode: `networks.proxy_mode`.
        flag: without dashes.
    """
    if mode == "none":
        return "the cluster has no kube-proxy", "leave the flag out"
    if flag in LOGGING:
        return None
    if flag not in _FIELDS:
        what = "kube-proxy has a configuration file, which has no field for this flag"
        return what, "leave it out"
    field, read = _FIELDS[flag]
    if field.startswith("iptables.") and mode != "iptables":
        return f"the flag has no effect in the mode {mode!r}", "leave it out"
    try:
        read(value)
    except ValueError:
        return f"{value!r} is not {_WORDS[read]}", f"write {_WORDS[read]}"
    return None


def merge(config: Mapping[str, Any], mode: str, extra: Mapping[str, str]) -> dict[str, Any]:
    """Give the configuration with the fields of the flags.

    Args:
        config: a KubeProxyConfiguration.
        mode: `nftables` or `iptables`.
        extra: flag -> value; flags for logging have no field.
    """
    merged = dict(config)
    for flag, value in extra.items():
        if flag not in _FIELDS:
            continue
        field, read = _FIELDS[flag]
        section, _, name = field.replace("MODE", mode).rpartition(".")
        if section:
            merged[section] = {**merged.get(section, {}), name: read(value)}
        else:
            merged[name] = read(value)
    return merged
