"""One hash of everything that a unit reads. Pure.

The machine's record keeps the hash once the unit runs. A run that was killed between writing a file
and restarting its reader leaves the old hash there, and so the next run restarts the unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from provision.desired.model import ComponentState, Unit


def reads(unit: Unit, state: ComponentState) -> tuple[str, ...]:
    """Give the paths that a unit of this component reads when it starts."""
    if unit.reads:
        return unit.reads
    own = [file.path for file in state.files]
    own += [binary.path for binary in state.binaries]
    own += [leaf.cert_path for leaf in state.leaves]
    return (*own, *unit.also)


def unit_digest(unit: Unit, state: ComponentState, hashes: Mapping[str, str]) -> str:
    """Give the SHA-256 of everything that a unit reads.

    Args:
        hashes: path -> hash; a missing path counts as an empty hash.
    """
    lines = "".join(f"{path}\t{hashes.get(path, '')}\n" for path in sorted(reads(unit, state)))
    return hashlib.sha256(lines.encode()).hexdigest()


def certificate_hash(pem: str) -> str:
    return hashlib.sha256(pem.strip().encode()).hexdigest()
