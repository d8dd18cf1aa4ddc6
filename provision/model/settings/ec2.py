"""Machines on EC2, and what is around them."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import Field

from provision.model.base import Model, Network
from provision.model.form import Form

Owner = Annotated[
    str,
    Form(
        r"[A-Za-z0-9][A-Za-z0-9 _.@+-]{0,127}",
        "1 to 128 letters, digits, spaces and _.@+-, and begin with a letter or digit",
    ),
]
VpcId = Annotated[str, Form(r"vpc-[0-9a-f]+", "a VPC's id, `vpc-` and hexadecimal digits")]


class Ec2(Model):
    """How machines on EC2 are made, and what is around them (`machines: "ec2"`)."""

    region: str = Field(
        default="", description="the AWS region; required", examples=["eu-central-1"]
    )
    zones: tuple[str, ...] = Field(
        default=(),
        description="availability zones; machines are spread over them, and with 3 the cluster "
        "survives the loss of one; required",
        examples=[["eu-central-1a", "eu-central-1b", "eu-central-1c"]],
    )
    owner: Owner = Field(
        default="",
        description="the cluster's owner, a team or an e-mail address: a tag on everything; "
        "clusterctl refuses a cluster of the same name with another owner; required",
        examples=["platform@example.org"],
    )
    network: Network = Field(
        default=IPv4Network("10.0.0.0/16"),
        description="network of the new VPC, or a free part of the network of the existing `vpc`; "
        "each zone gets a sixteenth",
    )
    vpc: VpcId | None = Field(
        default=None,
        description="id of an existing VPC; without it clusterctl makes one",
        examples=["vpc-0123456789abcdef0"],
    )
    image: str = Field(
        default="debian-12",
        description="`debian-12`, `ubuntu-24.04`, `amazon-linux-2023`; or an AMI's id, or "
        "`OWNER/NAME` with `*` in the name: these two need `ssh_user` too",
    )
    master_type: str = Field(default="t3.medium", description="instance type of masters and etcd")
    worker_type: str = Field(default="t3.medium", description="instance type of workers")
    disk: int = Field(
        default=20, ge=8, le=16384, description="size of each machine's root volume, in GiB"
    )
    etcd_disk: int = Field(
        default=10, ge=1, le=16384, description="size of each etcd member's data volume, in GiB"
    )
    group: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="number of additional workers in an Auto Scaling group",
    )
    spot: bool = Field(default=False, description="workers are spot instances")
    ssh: Literal["public", "private", "ssm"] = Field(
        default="public",
        description="public: SSH to public addresses; private: SSH to private addresses, through "
        "your VPN or bastion (`ssh_config_file`); ssm: SSH through the Session Manager, without an "
        "open port; the image must have its agent, which `debian-12` has not",
    )
    ssh_from: tuple[Network, ...] = Field(
        default=(),
        description="networks that may connect to SSH; required, except with `ssm`",
        examples=[["203.0.113.7/32"]],
    )
    api_from: tuple[Network, ...] = Field(
        default=(),
        description="networks that may connect to the API's load balancer",
        examples=[["203.0.113.0/24"]],
    )
    key_pair: str | None = Field(
        default=None,
        description="name of an existing EC2 key pair; without it clusterctl makes a key and "
        "imports it",
        examples=["operators"],
    )
    bucket: str = Field(
        default="",
        description="name of the S3 bucket; empty: `clusterctl-NAME-ACCOUNT-REGION`",
        examples=["example-demo"],
    )
    tags: dict[str, str] = Field(
        default_factory=dict,
        description="additional tags on everything",
        examples=[{"department": "platform"}],
    )
    endpoint: str = Field(
        default="",
        description="URL of an API that is compatible with AWS, for this computer and the "
        "machines; empty: AWS",
        examples=["https://aws.example.org"],
    )

    @property
    def api_url(self) -> str:
        """URL of EC2's own API."""
        return self.endpoint or f"https://ec2.{self.region}.amazonaws.com/"
