"""pyinfra deploys: packages, artifacts, a component's change, removal; one for each component.

`up` calls the first four with the contents of its plan. The deploys of components make their own
plan. They have the components' names, with `_` for `-`:
`from provision.pyinfra_plugin import containerd, kube_apiserver`.
docs/pyinfra.md shows them in a user's own pyinfra run.
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
    # Late import: planning imports the inventory and all machine sources, which `up` does not need.
    from provision.pyinfra_plugin.deploys import DEPLOYS  # noqa: PLC0415

    try:
        return DEPLOYS[name]
    except KeyError:
        message = f"there is no deploy {name!r}; there are {', '.join(DEPLOYS)}"
        raise AttributeError(message) from None
