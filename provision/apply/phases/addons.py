"""All add-ons but DNS; metrics-server is ready only after it has scraped every node twice."""

from __future__ import annotations

from functools import partial

from provision.apply.phases.ready import READY
from provision.apply.phases.rollout import rolled_out
from provision.apply.phases.run import Phase, leader

ADDONS = Phase("add-ons", "rolled out", leader, partial(rolled_out, dns=False), after=(READY,))
