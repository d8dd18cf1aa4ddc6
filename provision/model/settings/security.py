"""Certificates, Pod Security, and the machines' firewall."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from provision.model.base import Model, Network
from provision.model.form import Form


class Certificates(Model):
    leaf_days: float = Field(
        default=365,
        gt=0,
        le=3650,
        description="days that a new certificate is valid, those of kubelets included; it is "
        "renewed when a third is left",
    )
    authority: Literal["cluster", "external"] = Field(
        default="cluster",
        description="cluster: the cluster's own authorities sign, and the masters have their keys; "
        "external: your authority signs the requests of `clusterctl certs csr`, and "
        "`clusterctl certs import` installs the certificates",
    )

    @property
    def external(self) -> bool:
        """Whether an authority outside the cluster signs; its key is never on a machine."""
        return self.authority == "external"


Level = Literal["privileged", "baseline", "restricted"]
Namespace = Annotated[
    str,
    Form(
        r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
        "a namespace's name: 1 to 63 lower-case letters, digits and '-', and no '-' at its ends",
    ),
]


class PodSecurity(Model):
    """The Pod Security level of namespaces that do not set their own by labels."""

    enforce: Level = Field(
        default="baseline", description="pods that do not conform to this level are refused"
    )
    warn: Level = Field(
        default="restricted",
        description="pods that do not conform to this level cause a warning and an entry in the "
        "audit log",
    )
    exempt: tuple[Namespace, ...] = Field(
        default=(),
        description="namespaces without a level; the add-ons' own are always exempt",
        examples=[["rook-ceph"]],
    )


Opened = Annotated[
    str,
    Form(
        r"(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?( from [0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?)?",
        "tcp/PORT, udp/PORT or tcp/FIRST-LAST, and optionally ' from NETWORK', such as "
        "'tcp/9100 from 10.0.0.0/8'",
    ),
]


class Firewall(Model):
    """Rules on every machine for incoming packets; `True` alone enables them."""

    enabled: bool = Field(default=True, description="machines have these rules")
    ssh_from: tuple[Network, ...] = Field(
        default=(),
        description="networks that may connect to SSH; empty: all",
        examples=[["203.0.113.0/24"]],
    )
    allow: tuple[Opened, ...] = Field(
        default=(),
        description="additional ports that are open",
        examples=[["tcp/9100 from 10.0.0.0/8", "udp/51820"]],
    )

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, given: object) -> object:
        return {"enabled": given} if isinstance(given, bool) else given
