"""Packages of the distribution, artifacts, and the files and units of components."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra.api.deploy import deploy
from pyinfra.operations import dnf, server

from provision.apply.change import ComponentChange
from provision.apply.delivery_programs import Want, program
from provision.apply.operations.apply import apply
from provision.apply.operations.deliver import send
from provision.apply.operations.remove import remove
from provision.artifacts import compressed
from provision.artifacts.model import Ready
from provision.desired.packages import APT_INSTALL, own_units
from provision.model import paths
from provision.model.distribution import Family
from provision.model.settings.network import HttpProxy
from provision.plan.record import Removal

_BEFORE = f"{paths.STATE}/packages.before"
_INSTALLED = {
    Family.DEBIAN: "dpkg-query -W -f '${db:Status-Status} ${Package}\\n' | sed -n 's/^installed //p'",
    Family.RHEL: "rpm -qa --qf '%{NAME}\\n'",
}


@deploy("Packages")
def install_packages(packages: tuple[str, ...], os_family: Family) -> None:
    """Install packages and record that clusterctl installed them.

    Args:
        packages: names of packages that are not installed yet.
        os_family: `debian` or `rhel`.
    """
    # The file of an earlier run that was killed is kept: that run saw the machine as it was before.
    installed = _INSTALLED[os_family]
    see = f"{installed} | sort -u > {_BEFORE}"
    server.shell(
        name="Write down what is installed already",
        commands=[f"install -d -m 0755 {paths.RECORD} && {{ test -s {_BEFORE} || {see}; }}"],
    )
    if os_family == Family.DEBIAN:
        # pyinfra's own operation fails at once while another process uses apt.
        server.shell(
            name="Install packages",
            commands=[f"set -- {' '.join(packages)}\n{APT_INSTALL}"],
        )
    else:
        dnf.packages(name="Install packages", packages=list(packages))
    new = f"{installed} | sort -u | comm -13 {_BEFORE} -"
    server.shell(
        name="Write down what was installed, with what came along",
        commands=[f"{new} | sed 's/^/package\\t/' >> {paths.RECORD}/packages && rm -f {_BEFORE}"],
    )
    if units := own_units(packages):
        server.shell(
            name="Stop the distribution's own units of the same programs",
            commands=[f"systemctl disable --now --quiet {' '.join(units)}"],
        )


@deploy("Artifacts")
def install_artifacts(items: tuple[tuple[Ready, Want], ...], proxy: HttpProxy) -> None:
    """Put artifacts in place; the machine downloads those that have a URL.

    Args:
        items: the artifacts, each with its place.
        proxy: for downloads.
    """
    send(
        name=", ".join(ready.name for ready, _ in items),
        files={ready.pin: compressed(ready) for ready, _ in items if ready.local},
        program=program(items, paths.ARTIFACTS, proxy),
    )


@deploy("Component")
def install_component(change: ComponentChange) -> None:
    """Put one component's files in place and start its units."""
    apply(name=change.component, changes=(change,))


@deploy("Components")
def install_components(changes: Sequence[ComponentChange]) -> None:
    """Put the files of components in place and start their units, by one program."""
    apply(name=", ".join(change.component for change in changes), changes=changes)


@deploy("Remove")
def remove_unwanted(removals: tuple[Removal, ...]) -> None:
    """Remove what is on the machine and no longer wanted."""
    remove(name="What is no longer wanted", removals=removals)
