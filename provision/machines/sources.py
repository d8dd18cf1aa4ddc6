"""Choose the machine source of an inventory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from provision.inventory import Draft
from provision.machines import MachineSource
from provision.machines.lab import Lab
from provision.machines.static import Static
from provision.machines.vagrant import Vagrant
from provision.model import source
from provision.model.errors import MachinesError


def source_of(draft: Draft) -> MachineSource:
    """Make the source that the inventory names in `cluster["machines"]`.

    Raises:
        MachinesError: clusterctl has no source of that name.
    """
    make = _MAKE.get(draft.source.name)
    if make is None:
        message = f"clusterctl cannot make {draft.source.machines}: {draft.source} has no code"
        raise MachinesError(message, hint=f"these sources have code: {', '.join(_MAKE)}")
    return make()


def _ec2() -> MachineSource:
    from provision.machines.ec2.source import Ec2  # noqa: PLC0415  boto3 takes a while

    return Ec2()


_MAKE: Mapping[str, Callable[[], MachineSource]] = {
    source.STATIC.name: Static,
    source.LAB.name: Lab,
    source.VAGRANT.name: Vagrant,
    source.EC2.name: _ec2,
}
