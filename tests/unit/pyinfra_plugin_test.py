"""Deploys for plain pyinfra: which there are, and what they refuse."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from provision.desired import catalog
from provision.model.errors import RefusedError
from provision.pyinfra_plugin import deploys

DOCS = Path(__file__).parents[2] / "docs" / "pyinfra.md"


def test_the_docs_list_a_deploy_for_each_component():
    text = DOCS.read_text().partition("There is one for each component:")[2].partition(".\n")[0]

    listed = re.findall(r"`(\w+)`", text)
    assert listed == [c.name.replace("-", "_") for c in catalog.COMPONENTS]
    assert listed == list(deploys.DEPLOYS)


def test_the_firewall_is_refused_since_only_up_can_undo_rules_that_lock_the_operator_out():
    component = next(c for c in catalog.COMPONENTS if c.name == "firewall")
    cluster = SimpleNamespace(inventory="ha.py")
    trust = SimpleNamespace(fingerprint="f", generation=1)
    observed = SimpleNamespace(machine="m1", fingerprint="f", trust=(1, "d"), holder=None)

    with pytest.raises(RefusedError, match="refusing to change the firewall of m1") as refused:
        deploys._refuse(component, cluster, trust, observed)
    assert refused.value.hint.startswith("clusterctl up ha.py")
