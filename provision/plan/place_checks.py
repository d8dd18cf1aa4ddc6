"""Preflight's checks of the directories that a machine's components use. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from provision.desired.catalog import spaces
from provision.desired.model import Space
from provision.model.commands import shell
from provision.model.errors import Finding
from provision.model.observed import Place
from provision.plan.view import View

# MiB on /var/lib of a machine that is in a cluster: an upgrade needs room beside what is there.
DISK_FULL, DISK_LOW = 2048, 10240
_READ_ONLY = "Read-only file system"


def usable(view: View) -> Iterator[Finding]:
    """Find directories in which no file can be made, or from which no program can run."""
    needs = spaces(view.cluster, view.machine)
    refused: dict[tuple[str, str], list[Place]] = {}
    for place in view.host.places:
        if place.unwritable:
            refused.setdefault((place.there, place.unwritable), []).append(place)
        elif not place.runs and place.path in needs and needs[place.path].runs:
            refused.setdefault((place.mount, ""), []).append(place)
    for (where, why), places in refused.items():
        used = ", ".join(place.path for place in places)
        if why:
            yield view.finding(
                f"clusterctl cannot write in {where}, for {used}: {why}",
                _remount(places[0].mount, "rw")
                if why == _READ_ONLY
                else f"make {where} a directory that root can write",
            )
        else:
            yield view.finding(
                f"programs cannot run from {used}: the file system {where} is mounted with "
                "noexec, or a policy of the machine forbids it",
                _remount(where, "exec"),
            )


def _remount(mount: str, option: str) -> str:
    return f"{shell('mount', '-o', f'remount,{option}', mount)}; and set the option {option} in /etc/fstab"


def room(view: View) -> Iterator[Finding]:
    """Find file systems that are too small for the components that a new machine gets."""
    host = view.host
    if view.seen.record or not host.places:
        if host.var_free < DISK_LOW:
            full = host.var_free < DISK_FULL
            yield view.finding(
                f"its disk is {'full' if full else 'nearly full'}: "
                f"{host.var_free} MiB are free on /var/lib",
                f"free at least {DISK_FULL if full else DISK_LOW} MiB",
                fatal=full,
            )
        return
    needs = spaces(view.cluster, view.machine)
    by_mount: dict[str, list[Place]] = {}
    for place in host.places:
        if place.path in needs and not place.unwritable:
            by_mount.setdefault(place.mount, []).append(place)
    for mount, places in by_mount.items():
        total = sum((needs[place.path] for place in places), Space(mount, 0))
        free, inodes = places[0].free, places[0].inodes
        used = ", ".join(place.path for place in places)
        if free < max(total.least, total.enough):
            full = free < total.least
            needed = total.least if full else total.enough
            yield view.finding(
                f"the file system {mount} is {'full' if full else 'nearly full'}: {free} MiB "
                f"are free, and the cluster needs {needed} MiB there, for {used}",
                f"free at least {needed} MiB on {mount}, or make it larger",
                fatal=full,
            )
        if inodes is not None and inodes < total.inodes:
            yield view.finding(
                f"the file system {mount} has {inodes} free inodes; the cluster needs "
                f"{total.inodes}, for {used}",
                f"remove files from {mount}, or make the file system again with more inodes",
            )
