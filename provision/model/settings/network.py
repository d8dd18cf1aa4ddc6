"""How pods, Services and clients outside the nodes reach each other."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal

from pydantic import Field

from provision.model.base import Model


class Api(Model):
    """Where people and programs outside the nodes find the API.

    Nodes do not use it: each has a proxy on its own loopback.
    """

    name: str | None = Field(default=None, description="DNS name of a load balancer of yours")
    vip: IPv4Address | None = Field(
        default=None,
        description="virtual address, moved between the masters by keepalived; "
        "`auto` in the lab and with Vagrant: one is chosen",
    )
    port: int = Field(default=6443, ge=1024, le=65535, description="of `name`; else 6443")


class Networks(Model):
    pods: IPv4Network = Field(
        default=IPv4Network("10.244.0.0/16"), description="the pods' addresses, all nodes together"
    )
    services: IPv4Network = Field(
        default=IPv4Network("10.96.0.0/16"), description="the Services' addresses"
    )
    node_prefix: int = Field(default=24, description="size of each node's share of `pods`")
    domain: str = Field(default="cluster.local", description="DNS suffix of Services")
    plugin: Literal["routed", "custom"] = Field(
        default="routed",
        description="routed: the nodes announce their pods to each other (BIRD, OSPF), without "
        "an overlay; custom: your own manifests",
    )
    manifests: tuple[Path, ...] = Field(
        default=(), description="files for the plug-in `custom`; relative to the inventory"
    )
    proxy_mode: Literal["nftables", "iptables", "none"] = Field(
        default="nftables", description="how kube-proxy works; none: there is no kube-proxy"
    )
    mtu: int = Field(default=0, description="0: that of the machine's interface")

    @property
    def kubernetes_service(self) -> IPv4Address:
        """The Service `kubernetes`: the first address of the Service network."""
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        """CoreDNS' Service: the tenth address, as kubeadm has it."""
        return self.services[10]


class HttpProxy(Model):
    http: str | None = Field(default=None, repr=False, description="URL, for http://")
    https: str | None = Field(default=None, repr=False, description="URL, for https://")
    no_proxy: tuple[str, ...] = Field(
        default=(), description="names, addresses and networks that are reached directly"
    )
