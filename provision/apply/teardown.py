"""The programs that remove what clusterctl put on a machine: all that its record names, or a part.

Pure: text in, text out. They touch no rule, interface or mount that is not in the record, flush
nothing, and do not restart networking. Each program can be killed at any line and run again: it
removes a thing first, and its line of the record last.
"""

from __future__ import annotations

from collections.abc import Iterable

from provision.apply.programs import program
from provision.desired.catalog import UNITS
from provision.model import paths
from provision.model.paths import NEW
from provision.plan.record import Removal

_PARAMETERS = {
    "state": paths.STATE,
    "record": paths.RECORD,
    "units_directory": paths.UNITS,
    "kernel": "/proc/sys",
    "interfaces": "/sys/class/net",
    "settings": paths.SYSCTLS,
    "order": " ".join(reversed(UNITS)),
    "new": NEW,
}
DOWN = program("remove", "down", **_PARAMETERS)
PRUNE = program("remove", "prune", **_PARAMETERS)


def unwanted(removals: Iterable[Removal]) -> str:
    """What `PRUNE` reads on stdin: lines of the record, each group after its component's name."""
    lines: list[str] = []
    for removal in removals:
        lines.append(f"component\t{removal.component}")
        lines += ["\t".join(line) for line in removal.lines]
        lines += ["\t".join(("forget", *line)) for line in removal.forget]
    return "\n".join(lines)
