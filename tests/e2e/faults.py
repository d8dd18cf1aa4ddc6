"""The drill's faults that are end-to-end tests, and their cluster."""

from __future__ import annotations

from tests.e2e.sample import SAMPLES, sampled

# Five machines: faults from which a cluster recovers by itself, or with one command.
SHARED = (
    *SAMPLES["fault on the network"].parts,
    "apiserver-stopped", "apiserver-frozen", "worker-replaced", "all-off",
)  # fmt: skip
# Three masters.
MASTERS = (
    "ctrl-c",
    *SAMPLES["fault during up"].parts,
    "host-key-changed",
    *SAMPLES["fault that ends with node replace"].parts,
    "nospace", "restore-killed", "quorum-lost",
)  # fmt: skip
# Other tests cover these: shared/drill_test.py, shared/nodes_test.py, single/first_up_test.py. Or
# they are so similar to another fault that only `make drill` runs them.
ELSEWHERE = (
    "machine-off", "leader-off", "mute", "master-replaced", "two-operators", "stale-lock",
    "network-lost-in-replace", "network-lost-in-restore",
)  # fmt: skip


def of_this_run(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names without those that sampling leaves out."""
    left_out = {
        part
        for name, sample in SAMPLES.items()
        if name.startswith("fault ")
        for part in set(sample.parts) - set(sampled(name))
    }
    return tuple(name for name in names if name not in left_out)
