"""How pods, Services and clients outside the nodes reach each other."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal

from pydantic import Field

from provision.model.base import Model, Network

KUBELET_PODS = 110  # the number of pods that a kubelet accepts by default


class Api(Model):
    """Where people and programs outside the nodes find the API.

    Nodes do not use it: each has a proxy on its own loopback.
    """

    name: str | None = Field(
        default=None,
        description="DNS name of your load balancer",
        examples=["api.example.org"],
    )
    vip: IPv4Address | None = Field(
        default=None,
        description="a free address of the machines' network, which keepalived moves between the "
        "masters; `auto` with the lab and Vagrant: clusterctl chooses one",
        examples=["192.0.2.10"],
    )
    port: int = Field(
        default=6443, ge=1024, le=65535, description="port of the load balancer `name`"
    )


class Networks(Model):
    pods: Network = Field(
        default=IPv4Network("10.244.0.0/16"),
        description="network of all pods; a cluster keeps it for life",
    )
    services: Network = Field(
        default=IPv4Network("10.96.0.0/16"),
        description="network of the Services; a cluster keeps it for life",
    )
    node_prefix: int = Field(
        default=24,
        description="prefix length of the part of `pods` that each node gets; a cluster keeps it "
        "for life",
    )
    domain: str = Field(
        default="cluster.local", description="DNS suffix of Services; a cluster keeps it for life"
    )
    plugin: Literal["routed", "custom"] = Field(
        default="routed",
        description="routed: the nodes announce their pods to each other (BIRD, OSPF), without "
        "an overlay; custom: your own manifests",
    )
    manifests: tuple[Path, ...] = Field(
        default=(),
        description="manifest files of the plug-in `custom`",
        examples=[["calico.yaml"]],
    )
    proxy_mode: Literal["nftables", "iptables", "none"] = Field(
        default="nftables", description="how kube-proxy works; none: without kube-proxy"
    )
    mtu: int = Field(
        default=0,
        description="MTU of pods; 0: that of the machine's interface, or of its routes if that is "
        "smaller. Running pods follow a change",
    )

    @property
    def pods_of_a_node(self) -> int:
        """Addresses for a node's pods: all except the network's, the bridge's and the last."""
        share: int = 1 << (32 - max(0, min(self.node_prefix, 32)))
        return share - 3

    @property
    def kubernetes_service(self) -> IPv4Address:
        """The Service `kubernetes`: the first address of the Service network."""
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        """CoreDNS' Service: the tenth address, as kubeadm has it."""
        return self.services[10]


class HttpProxy(Model):
    http: str | None = Field(
        default=None,
        repr=False,
        description="URL of the proxy for http://",
        examples=["http://proxy.example.org:3128"],
    )
    https: str | None = Field(
        default=None,
        repr=False,
        description="URL of the proxy for https://",
        examples=["http://proxy.example.org:3128"],
    )
    no_proxy: tuple[str, ...] = Field(
        default=(),
        description="names, addresses and networks that machines reach without the proxy",
        examples=[[".example.org", "192.0.2.0/24"]],
    )
