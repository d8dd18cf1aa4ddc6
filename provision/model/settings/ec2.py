"""Machines on EC2, and what is around them."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Literal

from pydantic import Field

from provision.model.base import Model


class Ec2(Model):
    """How machines on EC2 are made, and what is around them (`machines: "ec2"`)."""

    region: str = Field(default="", description="such as `eu-central-1`; must be given")
    zones: tuple[str, ...] = Field(
        default=(),
        description="availability zones, such as `eu-central-1a`: machines are spread over them; "
        "must be given, 3 survive the loss of one",
    )
    owner: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.@+-]{0,127}$|^$",
        description="whose cluster it is, a team or an e-mail address, tagged on everything; "
        "another owner's cluster of the same name is refused; must be given",
    )
    network: IPv4Network = Field(
        default=IPv4Network("10.0.0.0/16"),
        description="of the VPC that is made; in a VPC that exists, a free part of its network: "
        "each zone gets a sixteenth",
    )
    vpc: str | None = Field(
        default=None, pattern=r"^vpc-[0-9a-f]+$", description="one that exists; else one is made"
    )
    image: str = Field(
        default="debian-12",
        description="`debian-12`, `ubuntu-24.04`, `amazon-linux-2023`; or an AMI's id, or "
        "`OWNER/NAME` with `*` in the name: then `ssh_user` must be given too",
    )
    master_type: str = Field(default="t3.medium", description="instance type of masters and etcd")
    worker_type: str = Field(default="t3.medium", description="instance type of workers")
    disk: int = Field(default=20, ge=8, le=16384, description="GiB, each machine's root volume")
    etcd_disk: int = Field(
        default=10, ge=1, le=16384, description="GiB, the volume of each etcd member's own"
    )
    group: int = Field(
        default=0, ge=0, le=1000, description="size of an Auto Scaling group of further workers"
    )
    spot: bool = Field(default=False, description="workers are spot instances")
    ssh: Literal["public", "private", "ssm"] = Field(
        default="public",
        description="public: to public addresses; private: to private ones, over a VPN or a "
        "bastion of yours (`ssh_config_file`); ssm: through the Session Manager, with no port open, "
        "and an image that has its agent: not `debian-12`",
    )
    ssh_from: tuple[IPv4Network, ...] = Field(
        default=(), description="networks that may reach SSH; must be given, except for `ssm`"
    )
    api_from: tuple[IPv4Network, ...] = Field(
        default=(), description="networks that may reach the API's load balancer"
    )
    key_pair: str | None = Field(
        default=None, description="an EC2 key pair that exists; else a key is made and imported"
    )
    bucket: str = Field(
        default="",
        description="name of the S3 bucket; else `clusterctl-NAME-ACCOUNT-REGION`",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="further tags on everything")
    endpoint: str = Field(
        default="",
        description="URL of AWS' APIs, for this computer and the machines, where it is not AWS' own",
    )

    @property
    def api_url(self) -> str:
        """Where EC2's own API is asked."""
        return self.endpoint or f"https://ec2.{self.region}.amazonaws.com/"
