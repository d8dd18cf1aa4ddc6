import ssl
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import ascii_lowercase, digits

import pytest
from cryptography import x509
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from provision.model.errors import TrustError
from provision.pki.authority import Signer
from provision.pki.leaf import Authority, Leaf, Usage, issue, problem
from provision.pki.trust import Trust

# A busy machine is no counterexample.
UNHURRIED = settings(deadline=None)

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
TRUST = Trust.create("lab", NOW)
OTHER = Trust.create("lab", NOW)

WORDS = st.text("abcdefghijklmnopqrstuvwxyzäß:-.", min_size=1, max_size=32)
# [a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\.[a-z]{2,8})?, for which `from_regex` takes ten times as long.
DNS = st.builds(
    str.__add__,
    st.text(f"{ascii_lowercase}{digits}-", min_size=1, max_size=22).map(
        lambda text: text.strip("-") or "a"
    ),
    st.just("") | st.text(ascii_lowercase, min_size=2, max_size=8).map(".{}".format),
)
LEAVES = st.builds(
    Leaf,
    name=st.just("leaf"),
    authority=st.sampled_from(Authority),
    common_name=WORDS,
    organizations=st.lists(WORDS, max_size=3).map(tuple),
    usages=st.frozensets(st.sampled_from(Usage), min_size=1),
    dns=st.lists(DNS, max_size=4).map(tuple),
    addresses=st.lists(st.ip_addresses().map(str), max_size=4).map(tuple),
    cert_path=st.just("/pki/leaf.crt"),
    key_path=st.just("/pki/leaf.key"),
    days=st.floats(0.01, 5000),
)
SERVER = Leaf(
    name="server",
    authority=Authority.KUBERNETES,
    common_name="server",
    usages=frozenset({Usage.SERVER}),
    dns=("server",),
    addresses=("10.0.0.4",),
    cert_path="/pki/server.crt",
    key_path="/pki/server.key",
)


def certificate_of(leaf: Leaf, now: datetime = NOW, trust: Trust = TRUST) -> str:
    return issue(leaf, trust, now).certificate.decode()


def life_of(pem: str) -> timedelta:
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc - NOW


@UNHURRIED
@given(LEAVES)
def test_a_new_leaf_has_no_problem(leaf: Leaf) -> None:
    assert problem(leaf, certificate_of(leaf), TRUST, NOW) is None


@UNHURRIED
@given(LEAVES, st.floats(0, 0.66))
def test_a_leaf_has_no_problem_for_two_thirds_of_its_life(leaf: Leaf, part: float) -> None:
    pem = certificate_of(leaf)
    assert problem(leaf, pem, TRUST, NOW + part * life_of(pem)) is None


@UNHURRIED
@given(LEAVES, st.floats(0.67, 0.99))
def test_a_leaf_is_renewed_in_the_last_third_of_its_life(leaf: Leaf, part: float) -> None:
    pem = certificate_of(leaf)
    reason = problem(leaf, pem, TRUST, NOW + part * life_of(pem))
    assert reason is not None
    assert str(reason).startswith("expires in ")


@UNHURRIED
@given(LEAVES, st.timedeltas(timedelta(0), timedelta(days=10000)))
def test_after_its_life_it_has_expired(leaf: Leaf, after: timedelta) -> None:
    pem = certificate_of(leaf)
    assert str(problem(leaf, pem, TRUST, NOW + life_of(pem) + after)) == "expired"


@UNHURRIED
@given(LEAVES, st.lists(DNS, max_size=4), st.lists(st.ip_addresses().map(str), max_size=4))
def test_changed_names_are_always_a_problem(
    leaf: Leaf, dns: list[str], addresses: list[str]
) -> None:
    wanted = replace(leaf, dns=tuple(dns), addresses=tuple(addresses))
    assume({*dns, *addresses} != {*leaf.dns, *leaf.addresses})
    reason = problem(wanted, certificate_of(leaf), TRUST, NOW)
    assert reason is not None
    assert str(reason).startswith("names differ: ")


@UNHURRIED
@given(LEAVES, LEAVES)
def test_another_subject_is_always_a_problem(leaf: Leaf, other: Leaf) -> None:
    wanted = replace(leaf, common_name=other.common_name, organizations=other.organizations)
    assume(
        (wanted.common_name, {*wanted.organizations}) != (leaf.common_name, {*leaf.organizations})
    )
    assert str(problem(wanted, certificate_of(leaf), TRUST, NOW)) == "subject differs"


@UNHURRIED
@given(LEAVES, st.frozensets(st.sampled_from(Usage), min_size=1))
def test_other_usages_are_always_a_problem(leaf: Leaf, usages: frozenset[Usage]) -> None:
    assume(usages != leaf.usages)
    wanted = replace(leaf, usages=usages)
    assert str(problem(wanted, certificate_of(leaf), TRUST, NOW)) == "usages differ"


@UNHURRIED
@given(LEAVES)
def test_an_authority_of_the_same_name_with_another_key_is_another_authority(leaf: Leaf) -> None:
    pem = certificate_of(leaf, trust=OTHER)
    assert str(problem(leaf, pem, TRUST, NOW)) == "signed by another authority"


@UNHURRIED
@given(LEAVES, st.sampled_from(Authority))
def test_another_authority_of_the_same_cluster_is_another_authority(
    leaf: Leaf, authority: Authority
) -> None:
    assume(authority is not leaf.authority)
    wanted = replace(leaf, authority=authority)
    assert str(problem(wanted, certificate_of(leaf), TRUST, NOW)) == "signed by another authority"


@UNHURRIED
@given(st.text(max_size=200))
def test_content_that_is_no_certificate_is_unreadable(text: str) -> None:
    assert str(problem(SERVER, text, TRUST, NOW)) == "unreadable"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_certificate_with_any_bit_of_its_content_flipped_is_a_problem() -> None:
    pem = certificate_of(SERVER)
    der = ssl.PEM_cert_to_DER_cert(pem)
    signed = x509.load_pem_x509_certificate(pem.encode()).tbs_certificate_bytes
    start = der.index(signed)
    for bit in range(8 * start, 8 * (start + len(signed))):
        damaged = bytearray(der)
        damaged[bit // 8] ^= 1 << bit % 8
        text = ssl.DER_cert_to_PEM_cert(bytes(damaged))
        assert problem(SERVER, text, TRUST, NOW) is not None, bit


def test_reasons_are_short_phrases_for_the_plan() -> None:
    pem = certificate_of(SERVER)
    moved = replace(SERVER, addresses=("10.0.0.5",))
    assert str(problem(SERVER, None, TRUST, NOW)) == "missing"
    assert str(problem(moved, pem, TRUST, NOW)) == "names differ: +10.0.0.5 -10.0.0.4"
    assert (
        str(problem(SERVER, pem, TRUST, NOW + timedelta(days=352, hours=1))) == "expires in 12 days"
    )
    assert str(problem(SERVER, pem, TRUST, NOW + timedelta(days=364))) == "expires in 23 hours"
    past = NOW - timedelta(days=1)
    assert str(problem(SERVER, pem, TRUST, past)) == "not valid before 2026-03-01 12:25 UTC"


def test_an_address_may_be_written_in_any_way() -> None:
    leaf = replace(SERVER, addresses=("2001:0db8:0:0::1",))
    assert problem(leaf, certificate_of(leaf), TRUST, NOW) is None


@UNHURRIED
@given(st.timedeltas(timedelta(0), timedelta(days=3650) - timedelta(seconds=2)), LEAVES)
def test_a_leaf_never_outlives_its_authority_and_is_no_problem_near_its_end(
    elapsed: timedelta, leaf: Leaf
) -> None:
    now = NOW + elapsed
    pem = certificate_of(leaf, now)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    authority = TRUST.authority(leaf.authority).x509
    assert authority.not_valid_before_utc <= certificate.not_valid_before_utc
    assert certificate.not_valid_after_utc <= authority.not_valid_after_utc
    assert problem(leaf, pem, TRUST, now) is None


@pytest.mark.parametrize("years", [-1, 11])
def test_an_authority_that_is_not_valid_issues_nothing(years: int) -> None:
    with pytest.raises(TrustError, match="kubernetes-ca is valid from 2026-03-01 12:25 to 2036-"):
        issue(SERVER, TRUST, NOW + timedelta(days=365 * years))


def test_without_its_authoritys_key_nothing_is_issued_and_the_hint_says_where_to_put_it() -> None:
    external = replace(TRUST, kubernetes=Signer(TRUST.kubernetes.certificate, None))
    with pytest.raises(TrustError, match="the key of kubernetes-ca is not in the cluster") as error:
        issue(SERVER, external, NOW)
    assert "/etc/kubernetes/pki/ca.key" in error.value.hint


@pytest.mark.parametrize("name", ["", "system:node:" + "a" * 53])
def test_a_subject_that_no_certificate_can_hold_is_refused(name: str) -> None:
    with pytest.raises(TrustError, match="cannot be the subject of a certificate") as error:
        issue(replace(SERVER, common_name=name), TRUST, NOW)
    assert "64 characters" in error.value.hint


def test_openssl_finds_the_extensions_and_dates_that_a_leaf_should_have(tmp_path: Path) -> None:
    path = tmp_path / "server.crt"
    path.write_text(certificate_of(SERVER))
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", path],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = [line.strip() for line in text.splitlines()]

    def after(heading: str) -> str:
        return lines[lines.index(heading) + 1]

    assert after("X509v3 Basic Constraints: critical") == "CA:FALSE"
    assert after("X509v3 Key Usage: critical") == "Digital Signature"
    assert after("X509v3 Extended Key Usage:") == "TLS Web Server Authentication"
    assert "X509v3 Subject Key Identifier:" in lines
    assert "X509v3 Authority Key Identifier:" in lines
    assert "ASN1 OID: prime256v1" in lines
    assert "Signature Algorithm: ecdsa-with-SHA256" in lines
    assert "Not Before: Mar  1 12:25:15 2026 GMT" in lines
    assert "Not After : Mar  1 12:30:15 2027 GMT" in lines


def test_a_key_belongs_to_its_certificate_and_to_no_other() -> None:
    first, second = issue(SERVER, TRUST, NOW), issue(SERVER, TRUST, NOW)

    def public(kind: str, pem: bytes) -> bytes:
        options = {"x509": ["-noout", "-pubkey"], "pkey": ["-pubout"]}[kind]
        return subprocess.run(
            ["openssl", kind, *options], input=pem, capture_output=True, check=True
        ).stdout

    assert public("x509", first.certificate) == public("pkey", first.key)
    assert public("x509", first.certificate) != public("pkey", second.key)
    serials = {x509.load_pem_x509_certificate(i.certificate).serial_number for i in (first, second)}
    assert len(serials) == 2


def test_the_text_form_of_an_issued_leaf_has_no_key() -> None:
    issued = issue(SERVER, TRUST, NOW)
    assert "PRIVATE" not in repr(issued)
    assert "PRIVATE" not in str(issued)
