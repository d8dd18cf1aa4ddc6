"""AMIs by their names. Owners: the account numbers of the publishers.

debian: https://wiki.debian.org/Cloud/AmazonEC2Image; ubuntu: https://cloud-images.ubuntu.com;
amazon: the alias that EC2 itself has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Image:
    """How to find an AMI.

    Attributes:
        id: of one AMI; without it, the newest one of
        owner: account or alias, and
        pattern: of names, with `*`; `{arch}` is replaced by the architecture in the publisher's words.
        words: architecture in EC2's words -> in the publisher's.
        user: for SSH; empty: the inventory must have one.
        agent: whether the image has the Session Manager's agent, as far as clusterctl knows.
    """

    id: str = ""
    owner: str = ""
    pattern: str = ""
    words: Mapping[str, str] | None = None
    user: str = ""
    agent: bool = True

    def request(self, arch: str) -> dict[str, Any]:
        """The arguments of `describe_images`."""
        if self.id:
            return {"ImageIds": [self.id]}
        name = self.pattern.format(arch=(self.words or {}).get(arch, arch))
        return {
            "Owners": [self.owner],
            "Filters": [
                {"Name": "name", "Values": [name]},
                {"Name": "architecture", "Values": [arch]},
                {"Name": "state", "Values": ["available"]},
            ],
        }


_DEB = {"x86_64": "amd64", "arm64": "arm64"}
KNOWN: Mapping[str, Image] = {
    "debian-12": Image(
        owner="136693071363",
        pattern="debian-12-{arch}-*",
        words=_DEB,
        user="admin",
        agent=False,
    ),
    "ubuntu-24.04": Image(
        owner="099720109477",
        pattern="ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{arch}-server-*",
        words=_DEB,
        user="ubuntu",
    ),
    "amazon-linux-2023": Image(
        owner="amazon", pattern="al2023-ami-2023.*-kernel-*-{arch}", user="ec2-user"
    ),
}
_OWN = re.compile(r"(?P<owner>[0-9]{12}|self|amazon)/(?P<pattern>[^{}]+)")


def image_of(text: str) -> Image | None:
    """Read the inventory's `image`; None if it is not an image."""
    if text in KNOWN:
        return KNOWN[text]
    if re.fullmatch(r"ami-[0-9a-f]{8,17}", text):
        return Image(id=text)
    match = _OWN.fullmatch(text)
    return Image(owner=match["owner"], pattern=match["pattern"]) if match else None


def newest(images: list[dict[str, Any]]) -> dict[str, Any] | None:
    return max(images, key=lambda image: image.get("CreationDate", ""), default=None)
