"""Machines that the lab or Vagrant makes on this computer."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Literal

from pydantic import Field

from provision.model.base import Model


class Lab(Model):
    """How the lab's machines are made (`machines: "lab"`)."""

    image: Literal["full", "bare"] = Field(
        default="full",
        description="bare: systemd, sshd and sudo only; packages are installed by the deploys",
    )


class Vagrant(Model):
    """How Vagrant makes machines (`machines: "vagrant"`)."""

    provider: Literal["auto", "virtualbox", "libvirt", "docker"] = Field(
        default="auto",
        description="docker: containers, made by podman too; auto: virtualbox or libvirt where "
        "it is installed, else docker",
    )
    box: str = Field(default="debian/bookworm64", description="what virtual machines are made from")
    memory: int = Field(
        default=2048, ge=1024, description="MiB of each virtual machine; containers have no limit"
    )
    cpus: int = Field(default=2, ge=1, description="of each virtual machine; likewise")
    network: IPv4Network | None = Field(
        default=None, description="the machines' own, a /24 or wider; left out: a free one is taken"
    )
