"""What `status` calls a problem."""

from dataclasses import replace

from provision.cli.views.status import collect
from tests.world import converged


def test_a_unit_that_systemd_calls_active_though_its_table_is_gone_is_a_problem():
    of, seen = converged()
    name = "clusterctl-masquerade.service"
    lost = replace(seen["w1"].units[name], lacks="ip clusterctl")
    flushed = replace(seen["w1"], units={**seen["w1"].units, name: lost})

    new = {*collect(of, seen | {"w1": flushed})["problems"]} - {*collect(of, seen)["problems"]}

    assert new == {f"w1: {name} is active, but nftables has no table ip clusterctl"}
