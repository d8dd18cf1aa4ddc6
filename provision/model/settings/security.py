"""Certificates, Pod Security, and the machines' firewall."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import Field, model_validator

from provision.model.base import Model


class Certificates(Model):
    leaf_days: float = Field(
        default=365,
        gt=0,
        le=3650,
        description="life of what is signed from now on, kubelets' own too; renewed when a third "
        "of it is left",
    )
    authority: Literal["cluster", "external"] = Field(
        default="cluster",
        description="who signs: authorities of the cluster's own, with their keys on the masters; "
        "external: yours, from requests, `clusterctl certs csr` and `certs import`",
    )

    @property
    def external(self) -> bool:
        """Whether no authority's key is ever here: what is signed comes from outside."""
        return self.authority == "external"


class PodSecurity(Model):
    """What pods may be, in a namespace that does not say it itself by its labels."""

    enforce: Literal["privileged", "baseline", "restricted"] = Field(
        default="baseline", description="what is beyond it is refused"
    )
    warn: Literal["privileged", "baseline", "restricted"] = Field(
        default="restricted", description="what is beyond it is warned of, and in the audit log"
    )
    exempt: tuple[Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")], ...] = (
        Field(
            default=(), description="namespaces to which it does not apply, beside our add-ons' own"
        )
    )


Opened = Annotated[
    str,
    Field(
        pattern=r"^(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?"
        r"( from [0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?)?$"
    ),
]


class Firewall(Model):
    """Rules on every machine for what comes in; `True` alone turns them on."""

    enabled: bool = Field(default=True, description="whether there are such rules")
    ssh_from: tuple[IPv4Network, ...] = Field(
        default=(), description="who may use SSH; nothing said: anybody"
    )
    allow: tuple[Opened, ...] = Field(
        default=(), description="what else: `tcp/9100 from 10.0.0.0/8`, `udp/51820`"
    )

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, given: object) -> object:
        return {"enabled": given} if isinstance(given, bool) else given
