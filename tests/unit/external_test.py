"""A cluster with an external authority: what its machines get, and what the authority must sign."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from provision.apply.install import program
from provision.apply.make_change import component_change
from provision.commands.certs import external_import
from provision.desired.catalog import desired
from provision.model.errors import RefusedError, TrustError
from provision.model.look import Look
from provision.model.observed import ObservedFile
from provision.model.settings.components import Addons
from provision.model.settings.security import Certificates, PodSecurity
from provision.pki import table
from provision.pki.authority import Signer
from provision.pki.leaf import issue, problem
from provision.pki.requests import all_paths, key_path, signed_path
from provision.pki.rotation import Part, begin
from provision.pki.signed import Signed
from provision.pki.trust import Trust
from provision.pki.trust_files import read_trust
from provision.plan import external_authority
from provision.plan.make import make_plan
from provision.plan.model import Renewal
from tests.world import (
    DEFAULT,
    LAB,
    NOW,
    Obedient,
    artifacts,
    cluster,
    converged,
    disks,
    look,
    master,
    trust,
    worker,
)

OF = cluster(master("m1"), worker("w1"), certificates=Certificates(authority="external"))
WITHOUT_KEYS = replace(
    trust(),
    kubernetes=Signer(trust().kubernetes.certificate, None),
    etcd=Signer(trust().etcd.certificate, None),
    front_proxy=Signer(trust().front_proxy.certificate, None),
)
HASH = hashlib.sha256(b"made on the machine").hexdigest()


def laid(view, machine, leaves, at=NOW):
    """What a probe sees once these were signed for the machine's own keys."""
    pems = {signed_path(leaf): issue(leaf, trust(), at).certificate.decode() for leaf in leaves}
    keys = {
        key_path(leaf): ObservedFile(key_path(leaf), "file", 0o600, "root", "root", 227, HASH)
        for leaf in leaves
    }
    return replace(view, certificates={**view.certificates, **pems}, files={**view.files, **keys})


def everything_laid(observed, at=NOW):
    return {m.name: laid(observed[m.name], m, table.node_leaves(OF, m), at) for m in OF.machines}


def planned(observed, now=NOW):
    return make_plan(OF, WITHOUT_KEYS, observed, artifacts(OF), now)


def test_no_machine_has_an_authoritys_key_or_signs():
    for machine in OF.machines:
        states = desired(OF, machine, WITHOUT_KEYS, LAB)
        files = {f.path: f.content.decode() for s in states.values() for f in s.files}
        assert not [path for path in files if path.endswith("ca.key")]
        text = "\n".join(files.values())
        for word in ("cluster-signing", "bootstrap-kubeconfig", "bootstrap-token", "approve)"):
            assert word not in text
        assert "rotateCertificates: false" in text
        (kubelet,) = [leaf for leaf in states["kubelet"].leaves if leaf.name == "kubelet-client"]
        assert kubelet.cert_path in files["/etc/kubernetes/kubelet.conf"]


def test_no_node_may_request_certificates_and_admins_are_service_accounts():
    text = desired(OF, OF.machine("m1"), WITHOUT_KEYS, LAB)["manifests"].files
    access = next(f.content.decode() for f in text if f.path.endswith("access.yaml"))
    assert "node-bootstrapper" not in access
    assert "certificatesigningrequests" not in access
    assert "system:serviceaccounts:clusterctl-admins" in access


def test_nothing_is_begun_before_all_was_signed_and_all_that_lacks_is_named():
    observed = look(OF, disks(OF))
    with pytest.raises(RefusedError) as refused:
        external_authority.refuse_unsigned(OF, WITHOUT_KEYS, observed, planned(observed), NOW)
    for machine in OF.machines:
        for leaf in table.node_leaves(OF, machine):
            assert f"{leaf.name} (missing)" in refused.value.message
    assert "certs csr" in refused.value.hint
    assert "certs import" in refused.value.hint


def test_a_signed_certificate_is_installed_with_the_machines_own_key():
    observed = everything_laid(look(OF, disks(OF)))
    plan = planned(observed)
    external_authority.refuse_unsigned(OF, WITHOUT_KEYS, observed, plan, NOW)
    machine = plan.machines["m1"]
    assert not machine.register
    component = machine.components["etcd"]
    issued = tuple(
        external_authority.obtain(change.leaf, WITHOUT_KEYS, observed["m1"], NOW)
        for change in component.leaves
    )
    assert {i.leaf.name for i in issued} == {"etcd-server", "etcd-peer", "etcd-healthcheck-client"}
    change = component_change(component, issued, observed["m1"], OF, WITHOUT_KEYS)
    assert f"key\t/etc/etcd/pki/server.key\t{HASH}\n" in change.record
    lines = program((change,)).splitlines()
    staged = (
        "stage /var/lib/clusterctl/requests/etcd-server.key /etc/etcd/pki/server.key "
        "-m 0600 -o etcd -g etcd"
    )
    assert staged in lines
    (last,) = [line for line in lines if line.startswith("rm -f -- /var")]
    assert set(all_paths(issued[0].leaf)) <= set(last.split())


def test_a_certificate_signed_for_another_request_is_not_used():
    machine = OF.machine("m1")
    leaf = table.apiserver(OF, machine)
    view = laid(look(OF, disks(OF))["m1"], machine, [replace(leaf, dns=("other",))])
    assert external_authority.ready(leaf, WITHOUT_KEYS, view, NOW) is None
    with pytest.raises(TrustError):
        external_authority.obtain(leaf, WITHOUT_KEYS, view, NOW)


def test_a_certificate_of_another_authority_is_never_used():
    machine = OF.machine("m1")
    leaf = table.apiserver(OF, machine)
    view = laid(look(OF, disks(OF))["m1"], machine, [leaf])
    assert external_authority.ready(leaf, trust(), view, NOW) is None


def installed(at=NOW):
    """All machines with certificates of then in their places, with the keys that were recorded."""
    observed = {}
    for machine in OF.machines:
        leaves = table.node_leaves(OF, machine)
        view = look(OF, disks(OF))[machine.name]
        pems = {leaf.cert_path: issue(leaf, trust(), at).certificate.decode() for leaf in leaves}
        keys = {
            leaf.key_path: ObservedFile(
                leaf.key_path, "file", 0o600, leaf.owner, leaf.group, 227, HASH
            )
            for leaf in leaves
        }
        observed[machine.name] = replace(view, certificates=pems, files=keys, registered=True)
    return observed


def issued_by(plan):
    return {
        (name, change.leaf.name): str(change.reason)
        for name, machine in plan.machines.items()
        for component in machine.components.values()
        for change in component.leaves
    }


def test_a_due_certificate_is_a_warning_and_stops_no_run():
    observed = installed()
    late = NOW + timedelta(days=300)
    plan = planned(observed, late)
    assert issued_by(plan) == {}
    external_authority.refuse_unsigned(OF, WITHOUT_KEYS, observed, plan, late)
    warnings = list(external_authority.due(OF, WITHOUT_KEYS, observed, late))
    assert {w.where for w in warnings} == {"m1", "w1"}
    assert not any(w.fatal for w in warnings)
    assert "kube-apiserver expires in 65 days" in warnings[0].what


def test_a_certificate_that_has_expired_must_be_signed():
    observed = installed()
    later = NOW + timedelta(days=400)
    with pytest.raises(RefusedError, match="kubelet-client .expired"):
        external_authority.refuse_unsigned(
            OF, WITHOUT_KEYS, observed, planned(observed, later), later
        )


def test_a_newly_signed_certificate_replaces_a_good_one():
    assert issued_by(planned(installed())) == {}
    plan = planned(everything_laid(installed()))
    assert set(issued_by(plan).values()) == {"signed anew"}
    assert len(issued_by(plan)) == sum(len(table.node_leaves(OF, m)) for m in OF.machines)
    kubelet = {u.name for c in plan.machines["w1"].components.values() for u in c.units}
    assert {"kubelet.service", "kube-proxy.service"} <= kubelet


def test_a_trust_from_elsewhere_is_the_same_after_it_was_read_back():
    made = Trust.signed_by(
        {a: Signer(trust().authority(a).certificate, None) for a in table.Authority}
    )
    files = {path: file.content for path, file in made.files().items()}
    assert not [path for path in files if path.endswith("ca.key")]
    again = read_trust(files, NOW)
    assert again == made
    assert again.external
    assert not trust().external


def successor(at):
    """Three new authorities, and what they sign."""
    made = Trust.create("demo", at)
    return made, {a: made.authority(a).certificate for a in table.Authority}


def order(observed, authorities, now, signed_by=None):
    """What is wrong with importing these authorities, and certificates of all machines by one."""
    look = Look(OF, observed)
    read = {
        m.name: [
            Signed(f"{leaf.name}.crt", leaf, "", issue(leaf, signed_by, now).certificate)
            for leaf in table.node_leaves(OF, m)
        ]
        for m in OF.machines
        if signed_by
    }
    in_use = external_import._in_use(look, WITHOUT_KEYS, now)
    return [f.what for f in external_import._order(look, read, WITHOUT_KEYS, authorities, in_use)]


def formed(observed):
    return {name: replace(view, fingerprint="f") for name, view in observed.items()}


def test_while_they_are_in_use_authorities_change_in_the_one_order_that_works():
    now = NOW + timedelta(days=1)
    new, alone = successor(now)
    observed = formed(installed())
    assert any("lacks the authority that signed" in what for what in order(observed, alone, now))
    both = {a: WITHOUT_KEYS.authority(a).certificate + pem for a, pem in alone.items()}
    assert order(observed, both, now) == []
    found = order(observed, both, now, signed_by=new)
    assert found
    assert set(found) == {"signed by an authority that the machines do not accept yet"}


@pytest.mark.parametrize("days", [400, 3700], ids=["leaves", "authorities"])
def test_expired_certificates_are_replaced_together_with_their_authority(days):
    now = NOW + timedelta(days=days)
    new, alone = successor(now)
    assert order(formed(installed()), alone, now) == []
    assert order(formed(installed()), alone, now, signed_by=new) == []


def test_certificates_of_an_expired_authority_count_as_expired():
    years = NOW + timedelta(days=3651)
    (leaf,) = (
        leaf for leaf in table.node_leaves(OF, OF.machine("w1")) if leaf.name == "kubelet-client"
    )
    later = replace(leaf, days=9)
    pem = outliving(later, NOW + timedelta(days=4000)).decode()
    assert problem(later, pem, WITHOUT_KEYS, NOW) is None
    assert str(problem(later, pem, WITHOUT_KEYS, years)) == "expired"


def outliving(leaf, end):
    """A certificate that ends after who has signed it."""
    signer = trust().authority(leaf.authority)
    made = x509.load_pem_x509_certificate(issue(leaf, trust(), NOW).certificate)
    builder = x509.CertificateBuilder(made.issuer, made.subject, made.public_key(), 7)
    builder = builder.not_valid_before(NOW).not_valid_after(end)
    for extension in made.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(signer.signing_key, SHA256()).public_bytes(Encoding.PEM)


EDITED = cluster(pod_security=PodSecurity(enforce="privileged"))


def others(of, observed, known=None, renewal=None):
    plan = make_plan(of, known or trust(), observed, artifacts(of), NOW, renewal)
    look = Look(of, observed)
    return external_import._others(look, plan), external_import._late(look, plan, known or trust())


def test_renewed_certificates_and_their_readers_count_as_no_other_change():
    of, observed = converged()
    everything = Renewal(frozenset(), NOW + timedelta(days=1))
    assert others(of, observed, renewal=everything) == ((), False)
    # Without an answer of the API, its objects count as unchanged.
    silent = {name: replace(view, api=None) for name, view in observed.items()}
    assert others(of, silent, renewal=everything) == ((), False)


def test_edits_of_the_inventory_count_as_other_changes():
    _, observed = converged()
    assert others(EDITED, observed) == (("m1", "m2", "m3"), False)
    routed = cluster(addons=Addons(metrics_server=False))
    assert "objects in the cluster" in others(routed, observed)[0]


def test_a_machine_without_the_authorities_of_the_import_before_is_late():
    of, observed = converged()
    before = begin(trust(), (Part.ETCD,), "demo", NOW)
    assert others(of, observed, known=before) == (("m1", "m2", "m3"), True)
    # One that is new gets all that there is, once.
    new = {**observed, "w1": look(of, disks(of))["w1"]}
    assert others(of, new) == (("w1",), False)


@pytest.fixture
def importing(monkeypatch, tmp_path):
    """Imports into a cluster that runs; returns what was done, and what it says."""
    done = []

    def run(inventory, new=None, known=None, alive=True):
        known = known or trust()
        of, observed = converged()
        session = SimpleNamespace(
            took=0.0,
            cluster=inventory,
            engine=Obedient(),
            known_trust=lambda _: known,
            observe=lambda **_: Look(inventory, observed),
            cache=SimpleNamespace(keep=lambda _: done.append("kept")),
        )
        leaf = table.apiserver(of, of.machine("m1"))
        signed = Signed("x.crt", leaf, "", issue(leaf, trust(), NOW).certificate)
        patches = {
            "_asked": lambda *_: {},
            "_read": lambda *_: ({} if new else {"m1": [signed]}, []),
            "_trust": lambda *_: new or known,
            "_order": lambda *_: [],
            "_in_use": lambda *_: [("m1", leaf, b"")] if alive else [],
            "_place": lambda *_: done.append("laid"),
            "execute": lambda *_: done.append("carried out"),
        }
        for name, patch in patches.items():
            monkeypatch.setattr(external_import, name, patch)
        monkeypatch.setattr(external_import.converge, "check", lambda *_: None)
        monkeypatch.setattr(external_import.renewal, "as_installed", lambda *_: artifacts(of))
        monkeypatch.setattr(external_import, "findings_of", lambda *_: [])
        return external_import.import_signed(session, tmp_path)

    return run, done


def test_certificates_are_used_at_once_where_nothing_else_is_to_change(importing):
    run, done = importing
    assert run(DEFAULT).others == ()
    assert done == ["kept", "laid", "carried out"]


def test_an_import_applies_no_other_edit_of_the_inventory(importing):
    run, done = importing
    assert run(EDITED).others == ("m1", "m2", "m3")
    assert done == ["kept", "laid"]


def test_authorities_are_not_changed_together_with_other_things(importing, monkeypatch):
    run, done = importing
    new = begin(trust(), (Part.ETCD,), "demo", NOW)
    with pytest.raises(
        RefusedError, match="authorities cannot change together.*m1, m2, m3"
    ) as refused:
        run(EDITED, new=new)
    assert "clusterctl up" in refused.value.hint
    # Nor certificates before all machines have the authorities of the import before.
    with pytest.raises(RefusedError, match="authorities cannot change together"):
        run(DEFAULT, known=new)
    assert done == []
    refused = RefusedError("a machine is empty")
    with monkeypatch.context() as patched:
        patched.setattr(external_import, "make_plan", Mock(side_effect=refused))
        with pytest.raises(RefusedError, match="is empty"):
            run(DEFAULT, new=new)
        assert done == []
        # Who replaces it needs its certificates there.
        with pytest.raises(RefusedError, match="is empty"):
            run(DEFAULT)
    assert done == ["kept", "laid"]
    done.clear()
    # Where everything is dead nothing can be brought in order before.
    assert run(EDITED, new=new, alive=False).others == ("m1", "m2", "m3")
    assert done == ["kept", "laid"]
