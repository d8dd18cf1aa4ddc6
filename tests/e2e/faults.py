"""Which of the drill's faults are end-to-end tests, and on which cluster."""

from __future__ import annotations

from tests.e2e.sample import SAMPLES, sampled

# On five machines: what a cluster gets over by itself, or with one command.
SHARED = (
    *SAMPLES["fault on the network"].parts,
    "apiserver-stopped", "apiserver-frozen", "worker-replaced", "all-off",
)  # fmt: skip
# On three masters.
MASTERS = (
    "ctrl-c",
    *SAMPLES["fault during up"].parts,
    "host-key-changed",
    *SAMPLES["fault that ends with node replace"].parts,
    "nospace", "restore-killed", "quorum-lost",
)  # fmt: skip
# Tested otherwise, in shared/drill_test.py, shared/nodes_test.py, single/first_up_test.py; or so
# like another fault that only `make drill` has them.
ELSEWHERE = (
    "machine-off", "leader-off", "mute", "master-replaced", "two-operators", "stale-lock",
    "network-lost-in-replace", "network-lost-in-restore",
)  # fmt: skip


def of_this_run(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are not left out by sampling."""
    left_out = {
        part
        for name, sample in SAMPLES.items()
        if name.startswith("fault ")
        for part in set(sample.parts) - set(sampled(name))
    }
    return tuple(name for name in names if name not in left_out)
