"""pyinfra deploys: packages, artifacts, a component's change, removal; one for each component.

`up` calls the former with what its plan holds. The others plan for themselves; their names are the
components' own, with `_` for `-`: `from provision.pyinfra_plugin import containerd, kube_apiserver`.
docs/pyinfra.md shows them in a pyinfra run of one's own.
"""

from collections.abc import Callable
from typing import Any

from provision.apply.deploys import (
    install_artifacts,
    install_component,
    install_packages,
    remove_unwanted,
)

__all__ = ["install_artifacts", "install_component", "install_packages", "remove_unwanted"]


def __getattr__(name: str) -> Callable[..., Any]:
    # Late: what plans knows the inventory and all sources of machines, and `up` does not need it.
    from provision.pyinfra_plugin.deploys import DEPLOYS  # noqa: PLC0415

    try:
        return DEPLOYS[name]
    except KeyError:
        message = f"there is no deploy {name!r}; there are {', '.join(DEPLOYS)}"
        raise AttributeError(message) from None
