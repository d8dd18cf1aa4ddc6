"""The stages in which authorities and keys are replaced, and which authorities each machine trusts in each."""

import itertools
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.model.errors import TrustError
from provision.pki import table
from provision.pki.leaf import Authority, issue, problem
from provision.pki.rotation import AUTHORITIES, Part, Stage, advance, begin, reached
from provision.pki.trust import ENCRYPTION_KEY, SA_PUB, SIGNING_CA, STATE, Trust
from provision.pki.trust_files import read_trust
from tests.world import NOW, cluster

OF = cluster()
M1 = OF.machine("m1")
LATER = NOW + timedelta(hours=2)
AUTHORITY_PARTS = sorted(AUTHORITIES)


def stages(*parts):
    """The Trusts before, in every stage, and after."""
    before = Trust.create("demo", NOW)
    introduced = begin(before, parts, "demo", NOW)
    active = advance(introduced, parts, NOW)
    withdrawn = advance(active, parts, NOW)
    return before, introduced, active, withdrawn, advance(withdrawn, parts, NOW)


def contents(trust):
    return {path: file.content for path, file in trust.files().items()}


def leaf_of(authority):
    row = {
        Authority.KUBERNETES: table.apiserver,
        Authority.ETCD: table.etcd_server,
        Authority.FRONT_PROXY: table.front_proxy_client,
    }[authority]
    return row(OF, M1)


def verifies(bundle, chain, tmp_path):
    """Whether openssl takes a certificate, with its chain, for one of these authorities'."""
    roots, first, rest = (tmp_path / name for name in ("roots", "leaf", "chain"))
    roots.write_bytes(bundle)
    first.write_bytes(chain)
    rest.write_bytes(chain)
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", roots, "-untrusted", rest, first],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.parametrize("part", AUTHORITY_PARTS)
def test_from_one_stage_to_the_next_all_machines_accept_each_other(part, tmp_path):
    authority = AUTHORITIES[part]
    seen = [t for t in stages(part) if t.rotation(part)]

    for one, next_ in itertools.pairwise(seen):
        for signer, verifier in ((one, next_), (next_, one), (one, one), (next_, next_)):
            if (signer, verifier) == (seen[0], seen[2]):
                continue
            chain = issue(leaf_of(authority), signer, NOW).certificate
            # Between the second stage and the third all has been issued anew.
            assert verifies(verifier.bundle(authority), chain, tmp_path)


@pytest.mark.parametrize("part", AUTHORITY_PARTS)
def test_in_the_end_the_old_one_counts_no_more(part, tmp_path):
    authority = AUTHORITIES[part]
    before, *_, withdrawn, after = stages(part)
    old = issue(leaf_of(authority), before, NOW).certificate

    for trust in (withdrawn, after):
        assert not verifies(trust.bundle(authority), old, tmp_path)
        assert before.authority(authority).certificate not in trust.bundle(authority)
    assert (
        str(problem(leaf_of(authority), old.decode(), after, NOW)) == "signed by another authority"
    )


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_clients_that_trust_only_the_old_authority_still_trust_the_apiserver(stage, tmp_path):
    seen = stages(Part.KUBERNETES)
    chain = issue(table.apiserver(OF, M1), seen[stage], LATER).certificate

    assert verifies(seen[0].bundle(Authority.KUBERNETES), chain, tmp_path)


def test_no_certificate_is_reissued_until_all_machines_accept_the_new_authority():
    before, introduced, active, *_ = stages(*AUTHORITY_PARTS)

    for authority in Authority:
        leaf = leaf_of(authority)
        pem = issue(leaf, before, NOW).certificate.decode()
        assert problem(leaf, pem, introduced, NOW) is None
        assert str(problem(leaf, pem, active, NOW)) == "signed by another authority"


def test_only_what_is_to_be_replaced_is_replaced():
    before, *_, after = stages(Part.ETCD)

    assert after.etcd != before.etcd
    assert (after.kubernetes, after.front_proxy) == (before.kubernetes, before.front_proxy)
    assert after.encryption_key == before.encryption_key
    assert after.service_account_key == before.service_account_key


def test_the_certificate_that_signs_is_always_alone_in_its_file_and_fits_the_key():
    for trust in stages(Part.KUBERNETES):
        (certificate,) = x509.load_pem_x509_certificates(contents(trust)[SIGNING_CA])
        key = trust.kubernetes.signing_key
        assert key is not None
        assert certificate.public_key() == key.public_key()


def test_a_cluster_stays_the_same_cluster():
    seen = stages(*Part)

    assert {trust.fingerprint for trust in seen} == {seen[0].fingerprint}
    assert [trust.generation for trust in seen] == [0, 1, 2, 3, 4]
    assert len({trust.digest for trust in seen}) == 5


def test_service_account_tokens_are_verified_by_both_and_signed_by_one():
    before, introduced, active, withdrawn, after = stages(Part.SERVICE_ACCOUNT)
    new = after.service_account_key

    keys = [trust.service_account_key for trust in (before, introduced, active, withdrawn)]
    assert keys == [before.service_account_key, before.service_account_key, new, new]
    counts = [contents(t)[SA_PUB].count(b"BEGIN PUBLIC") for t in stages(Part.SERVICE_ACCOUNT)]
    assert counts == [1, 2, 2, 1, 1]
    load_pem_public_key(contents(after)[SA_PUB])


def test_the_encryption_key_is_first_read_then_written_with_then_forgotten():
    names = [[name for name, _ in t.encryption_keys] for t in stages(Part.ENCRYPTION)]

    assert names == [["key1"], ["key1", "key2"], ["key2", "key1"], ["key2"], ["key2"]]
    seen = stages(Part.ENCRYPTION)
    assert seen[1].encryption_keys[::-1] == seen[1].encryption_keys[1::-1]
    for trust in seen:
        assert contents(trust)[ENCRYPTION_KEY].decode().strip() == trust.encryption_keys[0][1]


def test_a_replaced_part_can_be_replaced_again():
    once = stages(*Part)[-1]
    again = begin(once, Part, "demo", LATER)
    for _ in range(3):
        again = advance(again, Part, LATER)

    assert again.rotations == ()
    assert again.encryption_name == "key3"
    assert again.kubernetes != once.kubernetes
    assert again.fingerprint == once.fingerprint


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["begin", "advance", "reached"]), st.sets(st.sampled_from(list(Part)))
        ),
        max_size=6,
    )
)
def test_every_stage_is_read_back_as_it_was_written(steps):
    trust = Trust.create("demo", NOW)
    for step, parts in steps:
        if step == "begin":
            trust = begin(trust, (p for p in parts if not trust.rotation(p)), "demo", NOW)
        elif step == "reached":
            trust = reached(trust, parts, NOW)
        else:
            trust = advance(trust, parts, NOW)

    assert read_trust(contents(trust), NOW) == trust
    assert read_trust(contents(trust), NOW).digest == trust.digest


def test_files_of_two_generations_are_never_mixed():
    for one, next_ in itertools.pairwise(stages(*Part)):
        ours, theirs = contents(one), contents(next_)
        for path in ours:
            if ours[path] != theirs[path] and not path.endswith("ca.key") and path != SIGNING_CA:
                with suppress(TrustError):
                    read = read_trust({**theirs, path: ours[path]}, NOW)
                    assert read in {one, next_}


def test_a_replacement_that_is_under_way_is_not_begun_again():
    _, introduced, *_ = stages(Part.ETCD)

    with pytest.raises(TrustError, match="etcd is being replaced already"):
        begin(introduced, [Part.ETCD], "demo", NOW)


def test_an_authority_whose_key_is_elsewhere_is_not_replaced_here():
    files = contents(Trust.create("demo", NOW))
    external = read_trust(
        {p: c for p, c in files.items() if p != Authority.ETCD.key_path}, datetime.now(UTC)
    )

    with pytest.raises(TrustError, match="etcd-ca cannot be replaced: its key is not"):
        begin(external, [Part.ETCD], "demo", NOW)


def test_the_old_authoritys_key_is_kept_nowhere():
    before, *_ = stages(Part.ETCD)
    seen = stages(Part.ETCD)
    for trust in seen[2:]:
        assert seen[0].etcd.key not in b"".join(contents(trust).values())
    assert before.etcd.key


def test_the_text_form_of_a_rotation_has_no_secret():
    for trust in stages(*Part):
        for rotation in trust.rotations:
            assert "PRIVATE" not in repr(trust)
            if rotation.other.private:
                assert rotation.other.private.decode() not in repr(trust)


def test_a_state_file_that_is_something_else_is_named():
    files = contents(Trust.create("demo", NOW))

    for wrong in (b"", b"[]", b"{}", b'{"identity": 1}', b"\xff"):
        with pytest.raises(TrustError, match=f"^{STATE} "):
            read_trust({**files, STATE: wrong}, NOW)


def test_stages_are_those():
    _, introduced, active, withdrawn, after = stages(Part.ETCD)

    assert [t.rotations[0].stage for t in (introduced, active, withdrawn)] == list(Stage)
    assert after.rotations == ()
