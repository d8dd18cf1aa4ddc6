"""Machines that the lab or Vagrant makes on this computer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from provision.model.base import Model, Network


class Lab(Model):
    """How the lab's machines are made (`machines: "lab"`)."""

    image: Literal["full", "bare"] = Field(
        default="full",
        description="full: the packages that clusterctl needs are in the image; bare: only "
        "systemd, sshd and sudo are, and clusterctl installs the packages",
    )


class Vagrant(Model):
    """How Vagrant makes machines (`machines: "vagrant"`)."""

    provider: Literal["auto", "virtualbox", "libvirt", "docker"] = Field(
        default="auto",
        description="docker: containers, with Docker or Podman; auto: virtualbox or libvirt if "
        "it is installed, otherwise docker",
    )
    box: str = Field(default="debian/bookworm64", description="the box of virtual machines")
    memory: int = Field(
        default=2048, ge=1024, description="MiB of each virtual machine; containers have no limit"
    )
    cpus: int = Field(
        default=2, ge=1, description="CPUs of each virtual machine; containers have no limit"
    )
    network: Network | None = Field(
        default=None,
        description="the machines' own network, a /24 or wider; without it clusterctl chooses a "
        "free one",
        examples=["192.168.56.0/24"],
    )
