"""Remove test clusters and labs that an interrupted run left behind: `python -m tests.e2e.leftovers`."""

from __future__ import annotations

from tests import patched  # noqa: F401, I001  isort: skip

from provision.machines import container_engine
from provision.model.errors import MachinesError
from tests.e2e import ec2_lab
from tests.e2e.conftest import HERE, Lab, containers
from tests.integration import labs


def remove() -> None:
    """Remove this checkout's clusters and labs, if a container engine works. Idle clusters slow others."""
    try:
        container_engine.working()
    except MachinesError:
        return
    names = containers()
    for inventory in sorted((HERE / "inventories").glob("*.py")):
        lab = Lab(inventory)
        if any(name.startswith(lab.prefix) for name in names):
            lab.clusterctl("down", "--yes")
    ec2_lab.clean()
    labs.remove()


if __name__ == "__main__":
    remove()
