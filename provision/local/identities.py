"""Keys of snapshots that this operator has seen. They outlive their clusters, like snapshots.

They are in one file that age itself reads: `age -d -i ~/.local/state/clusterctl/identities FILE`.
"""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_state_path

from provision.local import private_file


def path() -> Path:
    return user_state_path("clusterctl") / "identities"


def remember(identity: str, cluster: str) -> None:
    """Add a cluster's key, unless the file has it."""
    text = path().read_text() if path().exists() else ""
    if identity not in text.splitlines():
        private_file.write(path(), f"{text}# {cluster}\n{identity}\n".encode())
