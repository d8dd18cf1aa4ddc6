"""pyinfra deploys: packages, a change of the operator's own, and one for each component.

The deploys of components make their own plan. They have the components' names, with `_` for `-`:
`from provision.pyinfra_plugin import containerd, kube_apiserver`.
docs/pyinfra.md shows them in a user's own pyinfra run.
"""

from collections.abc import Callable
from typing import Any

from provision.apply.deploys import install_packages

__all__ = ["install_packages"]


def __getattr__(name: str) -> Callable[..., Any]:
    # Late import: planning imports the inventory and all machine sources, which `up` does not need.
    from provision.pyinfra_plugin.deploys import DEPLOYS, install_own_component  # noqa: PLC0415

    deploys: dict[str, Callable[..., Any]] = {**DEPLOYS, "install_component": install_own_component}
    try:
        return deploys[name]
    except KeyError:
        message = f"there is no deploy {name!r}; there are {', '.join(DEPLOYS)}"
        raise AttributeError(message) from None
