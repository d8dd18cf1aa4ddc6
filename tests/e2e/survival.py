"""Check each fault of the drill from outside: which of the writes during the fault exist."""

from __future__ import annotations

import json
from pathlib import Path

from provision.drill.faults import FAULTS, Fault
from provision.drill.measure import Result, measure
from provision.drill.outage import acknowledged
from provision.drill.site import Site
from provision.drill.writer import NAMESPACE
from provision.local.progress import Silent
from provision.local.runlog import RunLog
from tests.e2e.conftest import ETCDCTL, Lab

NAMED = {fault.name: fault for fault in FAULTS}


def survives(fault: Fault, site: Site, lab: Lab, log: Path) -> Result:
    """Cause the fault. Then check with kubectl through the API, and with etcdctl on the victim."""
    measured = measure(site, fault, Silent(), RunLog(log))

    result = measured.result
    print(json.dumps({k: v for k, v in vars(result).items() if v}))
    assert result.problem == ""
    written = {name for attempts in measured.attempts.values() for name in acknowledged(attempts)}
    kept = written - measured.excused
    assert len(kept) > 50
    listed = lab.kubectl("get", "configmaps", "-n", NAMESPACE, "-o", "name").stdout.split()
    assert kept <= {name.removeprefix("configmap/") for name in listed}
    prefix = f"/registry/configmaps/{NAMESPACE}/"
    member = result.victim if result.victim in {"m1", "m2", "m3"} else "m1"
    keys = lab.on(member, f"{ETCDCTL} get {prefix} --prefix --keys-only").split()
    assert kept <= {key.removeprefix(prefix) for key in keys}
    return result
