"""Remove from the machines what is no longer wanted, except the firewall."""

from __future__ import annotations

from provision.apply.phases.nodes import NODES
from provision.apply.phases.removal import prune, removing
from provision.apply.phases.run import Phase

PRUNE = Phase(
    "prune",
    "what is no longer wanted",
    removing(firewall=False),
    prune(firewall=False),
    after=(NODES,),
)
