"""Deploys for plain pyinfra: which there are, and what they refuse."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from provision import pyinfra_plugin
from provision.apply.change import ComponentChange
from provision.desired import catalog
from provision.desired.model import ComponentPhase
from provision.model.errors import PreflightError, RefusedError
from provision.model.holder import Holder
from provision.model.observed import HostReport, ObservedUnit
from provision.plan.machine import plan_machine
from provision.plan.quorum import Standing
from provision.pyinfra_plugin import deploys, guards
from tests.world import DEFAULT, NOW, artifacts, converged, trust

DOCS = Path(__file__).parents[2] / "docs" / "pyinfra.md"
EVERYONE = tuple(m.name for m in DEFAULT.machines)


def host(name, **values):
    fit = HostReport(
        hostname=name, machine_id=f"id of {name}", os_id="debian", os_version="12",
        os_name="Debian 12", kernel="6.1.0", systemd=252, cpus=2, memory=4096, disk_free=50_000,
        var_free=50_000, clock_offset=0.1,
    )  # fmt: skip
    return replace(fit, **values)


def seen(name="m1", **values):
    """A machine of a running cluster, as a deploy sees it."""
    _, observed = converged(DEFAULT)
    return replace(observed[name], **{"host": host(name), "api": None, **values})


def refuse_machine(holder=None, keys=None, **values):
    guards.refuse_machine(DEFAULT, keys or trust(), seen(**values), holder)


def refuse(component, name="m1", together=EVERYONE, **values):
    """Judge the deploy of a component as the deploy does it."""
    component, observed = catalog.component(component), seen(name, **values)
    guards.refuse_component(component, DEFAULT, observed)
    ready = artifacts(DEFAULT)
    plan = plan_machine(
        DEFAULT, DEFAULT.machine(name), trust(), observed, ready, NOW,
        etcd=Standing.MEMBER, nodes=None,
    )  # fmt: skip
    guards.refuse_change(component, DEFAULT, observed, plan, ready, together)


def drifted(name, path):
    """The files of a machine, one with another content."""
    files = seen(name).files
    return {**files, path: replace(files[path], sha256="0" * 64)}


def config(component):
    """A file that the component's unit reads."""
    _, observed = converged(DEFAULT)
    state = catalog.component(component).state(
        DEFAULT, DEFAULT.machine("m1"), trust(), observed["m1"].facts
    )
    return next(file.path for file in state.files if file.path.endswith(".service"))


def older(name, prefix):
    """The binaries of a machine, those of these artifacts from another version."""
    return {
        path: replace(binary, version="0.9", pin="old") if path.startswith(prefix) else binary
        for path, binary in seen(name).binaries.items()
    }


def test_the_docs_list_a_deploy_for_each_component():
    text = DOCS.read_text().partition("There is one for each component:")[2].partition(".\n")[0]

    listed = re.findall(r"`(\w+)`", text)
    assert listed == [c.name.replace("-", "_") for c in catalog.COMPONENTS]
    assert listed == list(deploys.DEPLOYS)


def test_the_plug_in_has_only_deploys_with_guards():
    assert pyinfra_plugin.__all__ == ["install_packages"]
    assert pyinfra_plugin.install_component is deploys.install_own_component
    for name in ("remove_unwanted", "install_artifacts"):
        with pytest.raises(AttributeError, match="there is no deploy"):
            getattr(pyinfra_plugin, name)


# The machine


def test_a_fit_machine_of_the_cluster_passes():
    for machine in DEFAULT.machines:
        refuse_machine(name=machine.name)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"host": host("m1", clock_offset=-600.0)}, "clock"),
        ({"host": host("m1", cpus=1), "cluster": "other"}, "belongs to the cluster other"),
        ({"fingerprint": "f" * 64}, "belongs to another cluster of the name demo"),
    ],
)
def test_a_machine_that_preflight_refuses_is_refused(values, what):
    with pytest.raises(PreflightError, match=what):
        refuse_machine(**values)


def test_another_operator_at_work_is_named():
    bob = Holder("bob", "desk", 7, "clusterctl up ha.py")
    with pytest.raises(RefusedError, match="bob@desk"):
        refuse_machine(holder=bob)


def test_an_unfinished_restore_is_refused():
    with pytest.raises(RefusedError, match="did not finish"):
        refuse_machine(restoring="sha256 1")


def test_newer_keys_on_the_machine_are_refused():
    with pytest.raises(RefusedError, match="newer keys") as refused:
        refuse_machine(trust=(trust().generation + 1, "digest"))
    assert refused.value.hint.startswith("clusterctl trust fetch")


# The change


@pytest.mark.parametrize(
    "component", [c.name for c in catalog.COMPONENTS if c.phase is not ComponentPhase.FIREWALL]
)
def test_a_component_may_be_deployed_if_nothing_changes(component):
    for machine in DEFAULT.machines:
        if catalog.component(component).wanted(DEFAULT, machine):
            refuse(component, machine.name)


def test_the_firewall_is_refused_since_only_up_can_undo_rules_that_lock_the_operator_out():
    with pytest.raises(RefusedError, match="refusing to change the firewall of m1") as refused:
        refuse("firewall")
    assert refused.value.hint.startswith("use clusterctl up ")


@pytest.mark.parametrize("missing", ["etcd_data", "etcd_formed"])
def test_a_member_without_data_is_refused(missing):
    with pytest.raises(RefusedError, match="m1 has no etcd data"):
        refuse("etcd", **{missing: False})


def test_a_restart_of_a_member_is_refused_and_a_start_is_not():
    files = drifted("m1", config("etcd"))
    with pytest.raises(RefusedError, match="etcd on m1 needs a restart .*etcd.service") as refused:
        refuse("etcd", files=files)
    assert refused.value.hint.startswith("use clusterctl up ")
    stopped = ObservedUnit("etcd.service", "loaded", "inactive", "dead", "enabled")
    refuse("etcd", units={**seen().units, "etcd.service": stopped})


@pytest.mark.parametrize(
    "component", ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
)
def test_a_restart_of_the_control_plane_is_refused_on_several_masters_at_once(component):
    files = drifted("m1", config(component))
    with pytest.raises(RefusedError, match=f"{component} restarts on m1") as refused:
        refuse(component, files=files)
    assert "pyinfra --limit m1" in refused.value.hint
    refuse(component, files=files, together=("m1", "w1", "w2"))


def test_a_restart_of_a_runtime_is_allowed_on_several_masters_as_up_does_it():
    refuse("containerd", files=drifted("m1", config("containerd")))


@pytest.mark.parametrize("component", ["kubelet", "kube-proxy"])
def test_a_kubelet_without_a_certificate_is_refused_since_only_up_has_a_token(component):
    with pytest.raises(RefusedError, match="one-time token"):
        refuse(component, "w1", registered=False)


@pytest.mark.parametrize(
    ("component", "name"), [("kube-apiserver", "m1"), ("kubelet", "w1"), ("kube-proxy", "w1")]
)
def test_another_version_of_kubernetes_is_refused(component, name):
    with pytest.raises(RefusedError, match="is 0.9, and the inventory wants 1.0"):
        refuse(component, name, together=(name,), binaries=older(name, "/"))


def test_another_version_of_a_runtime_is_not_refused():
    refuse("containerd", "w1", binaries=older("w1", "/"))


# A change of the operator's own


def test_a_change_with_the_name_of_a_component_is_refused():
    with pytest.raises(RefusedError, match="firewall is a component of clusterctl"):
        guards.refuse_own(ComponentChange(component="firewall"))


@pytest.mark.parametrize("field", ["record", "record_before"])
def test_a_change_with_a_record_is_refused(field):
    with pytest.raises(RefusedError, match="the change notice has a record"):
        guards.refuse_own(ComponentChange(component="notice", **{field: "file\t/etc/motd\n"}))


def test_another_change_passes():
    guards.refuse_own(ComponentChange(component="notice", health="true"))
