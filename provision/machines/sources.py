"""Which source makes the machines of an inventory."""

from __future__ import annotations

from provision.inventory import Draft
from provision.machines import MachineSource
from provision.machines.lab import Lab
from provision.machines.static import Static
from provision.machines.vagrant import Vagrant


def source_of(draft: Draft) -> MachineSource:
    """Choose by `cluster["machines"]`."""
    if draft.source == "ec2":
        from provision.machines.ec2.source import Ec2  # noqa: PLC0415  boto3 takes a while

        return Ec2()
    if draft.source == "lab":
        return Lab()
    return Vagrant() if draft.source == "vagrant" else Static()
