"""The command line of OpenSSH's client, for what needs a terminal or a forwarded port."""

from __future__ import annotations

from pathlib import Path

from provision.local import ssh_config
from provision.model.cluster import Ssh


def command(target: Ssh, known_hosts: Path, *options: str) -> list[str]:
    """Give the `ssh` command to a machine, up to its name. A remote command may be appended.

    Args:
        known_hosts: from `provision.machines.locate`; a host key that is not in it is refused.
    """
    arguments = [
        "ssh",
        "-o", ssh_config.known_hosts_option(known_hosts),
        # The file has what counts of the system's files; a pinned machine has its pin alone.
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes",
        "-o", "LogLevel=ERROR",
        "-p", str(target.port),
        "-l", target.user,
    ]  # fmt: skip
    if target.key:
        arguments += ["-i", str(target.key), "-o", "IdentitiesOnly=yes"]
    if target.config_file:
        arguments += ["-F", str(target.config_file)]
    return [*arguments, *options, target.hostname]
