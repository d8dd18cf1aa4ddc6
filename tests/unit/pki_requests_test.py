"""What an external authority is asked for, and what it may give back."""

import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from provision.model import paths
from provision.model.settings.security import Certificates
from provision.pki import requests, signed, table
from provision.pki.authority import create_authority, key_usage, new_key
from provision.pki.signed import Signed, findings_of
from tests.world import cluster, master, worker

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OF = cluster(master("m1"), worker("w1"), certificates=Certificates(authority="external"))
LEAVES = {m.name: table.node_leaves(OF, m) for m in OF.machines}
SERVING = table.apiserver(OF, OF.machine("m1"))
CLIENT = table.admin(OF, OF.machine("m1"))
PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@cache
def ca(name="outside"):
    return create_authority(name, NOW - timedelta(days=400))


def key_of(leaf, _keys={}):  # noqa: B006 - the same key for the same leaf
    return _keys.setdefault(leaf, new_key())


def subject_of(leaf, common_name=None):
    return x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in leaf.organizations),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name or leaf.common_name),
        ]
    )


def request(leaf):
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_of(leaf))
    return builder.sign(key_of(leaf), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


# Defect -> what its finding says.
DEFECTS = {
    "key": "is for another key than its request's",
    "subject": "its subject is",
    "purpose": "is not for a",
    "handshake": "may not be used in a handshake",
    "names": "its alternative names lack",
    "authority": "is the certificate of an authority",
    "signer": "signed by another authority",
    "early": "not valid before",
    "expired": "expired on",
}


def certificate(leaf, *defects, extra_names=(), extra_purposes=()):
    signer = ca("another") if "signer" in defects else ca()
    wanted = [x509.DNSName(name) for name in (*leaf.dns, *extra_names)]
    wanted += [x509.IPAddress(ip_address(address)) for address in leaf.addresses]
    begins = NOW + timedelta(days=1) if "early" in defects else NOW - timedelta(days=2)
    ends = NOW - timedelta(days=1) if "expired" in defects else NOW + timedelta(days=90)
    purposes = [PURPOSES[usage] for usage in (*leaf.usages, *extra_purposes)]
    if "purpose" in defects:
        purposes = [ExtendedKeyUsageOID.CODE_SIGNING]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_of(leaf, "somebody" if "subject" in defects else None))
        .issuer_name(signer.x509.subject)
        .public_key((new_key() if "key" in defects else key_of(leaf)).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(
            min(begins, ends - timedelta(days=1)) if "early" not in defects else begins
        )
        .not_valid_after(
            max(ends, begins + timedelta(days=1)) if "expired" not in defects else ends
        )
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.BasicConstraints(ca="authority" in defects, path_length=None), critical=True
        )
        .add_extension(
            key_usage(
                digital_signature="handshake" not in defects, key_cert_sign="authority" in defects
            ),
            critical=True,
        )
    )
    if wanted and "names" not in defects:
        builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
    return builder.sign(signer.signing_key, hashes.SHA256()).public_bytes(Encoding.PEM)


def found(leaf, content):
    signed = Signed("a/m1.x.crt", leaf, request(leaf), content)
    return [str(f) for f in findings_of(signed, ca().accepted, NOW)]


@pytest.mark.parametrize("machine", LEAVES)
def test_a_certificate_that_fits_its_request_is_accepted(machine):
    for leaf in LEAVES[machine]:
        assert found(leaf, certificate(leaf)) == []


@given(st.sets(st.sampled_from(sorted(DEFECTS))))
def test_everything_that_is_wrong_is_found_and_nothing_else(defects):
    if {"early", "expired"} <= defects:
        defects -= {"early"}  # a certificate ends after it begins

    said = found(SERVING, certificate(SERVING, *defects))

    assert len(said) == len(defects)
    for defect in defects:
        assert any(DEFECTS[defect] in line for line in said), (defect, said)


def test_more_than_was_asked_for_is_taken():
    generous = certificate(SERVING, extra_names=("api.example",), extra_purposes=("client",))
    assert found(SERVING, generous) == []


def test_a_group_too_many_is_another_subject():
    wider = replace(CLIENT, organizations=("system:masters", "somebody"))
    content = certificate(wider)
    assert any(
        "its subject is O=somebody, O=system:masters" in line for line in found(CLIENT, content)
    )


@pytest.mark.parametrize(
    "content", [b"", b"none", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_content_that_is_no_certificate_is_reported(content):
    assert found(SERVING, content) == ["a/m1.x.crt: is not a certificate in PEM"]
    assert "is not a certificate" in str(next(signed.authority_findings("x.crt", content, NOW)))


@given(st.binary(max_size=300))
def test_no_file_at_all_can_make_it_stumble(content):
    assert found(SERVING, content)
    assert list(signed.authority_findings("x.crt", content, NOW))


def test_an_authority_is_taken():
    assert list(signed.authority_findings("x.crt", ca().certificate, NOW)) == []


def test_a_leaf_is_no_authority():
    content = certificate(SERVING)
    (finding,) = signed.authority_findings("x.crt", content, NOW)
    assert "is not the certificate of an authority" in finding.what


def test_an_authority_that_has_expired_is_found():
    later = NOW + timedelta(days=9999)
    assert "expired on" in str(next(signed.authority_findings("x.crt", ca().certificate, later)))


def intermediate():
    key, above = new_key(), ca()
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")]))
        .issuer_name(above.x509.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=900))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(above.signing_key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)


def test_an_authority_in_between_comes_with_those_above_it():
    between = intermediate()
    (finding,) = signed.authority_findings("x.crt", between, NOW)
    assert "the authority that signed CN=between is not in the file" in finding.what
    assert list(signed.authority_findings("x.crt", between + ca().certificate, NOW)) == []


def test_one_authority_for_two_purposes_is_refused():
    shared = {"kubernetes-ca.crt": ca().certificate, "etcd-ca.crt": ca("other").certificate}
    assert list(signed.shared_findings(shared)) == []
    shared["etcd-ca.crt"] += ca().certificate
    (finding,) = signed.shared_findings(shared)
    assert finding.where == "etcd-ca.crt"
    assert "is in kubernetes-ca.crt too" in finding.what


def test_only_the_certificates_of_a_file_are_read():
    content = b"Certificate:\n  Data: ...\n" + certificate(SERVING) + b"\ntail"
    assert signed.read_chain(content) == certificate_again(content)


def certificate_again(content):
    (only,) = x509.load_pem_x509_certificates(content)
    return only.public_bytes(Encoding.PEM)


def test_there_is_a_file_for_each_and_the_index_names_all():
    asked = {name: {leaf: request(leaf) for leaf in leaves} for name, leaves in LEAVES.items()}
    files = requests.outgoing(asked)
    index = files.pop("INDEX.txt").decode().splitlines()
    assert len(files) == sum(map(len, LEAVES.values())) == len(index) - 1
    assert {line.split()[0] for line in index[1:]} == set(files)
    (line,) = [line for line in index if line.startswith("etcd-ca/m1.etcd-peer.csr")]
    assert "  client and server  " in line
    assert "10.77.0.11" in line
    assert any("O=system:nodes, CN=system:node:w1" in line for line in index)


@pytest.fixture
def shell(tmp_path):
    """Runs a program as on a machine of its own, below a directory."""

    def run(program, stdin=b""):
        done = subprocess.run(
            ["sh", "-c", program.replace(paths.STATE, str(tmp_path))],
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    run.directory = tmp_path / "requests"
    return run


def keys(shell):
    return {file.name: file.read_bytes() for file in shell.directory.glob("*.key")}


def test_a_machine_makes_keys_of_its_own_and_shows_requests_only(shell):
    leaves = LEAVES["m1"]
    made = requests.parse(shell(requests.request_program(leaves)))
    assert set(made) == {leaf.name for leaf in leaves}
    assert stat.S_IMODE(shell.directory.stat().st_mode) == 0o700
    for file in shell.directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(set(keys(shell).values())) == len(leaves)
    for leaf in leaves:
        pem = made[leaf.name].encode()
        assert b"PRIVATE" not in pem
        asked = x509.load_pem_x509_csr(pem)
        assert asked.is_signature_valid
        assert asked.subject.rfc4514_string() == subject_of(leaf).rfc4514_string()
        wanted = {*leaf.dns, *leaf.addresses}
        extensions = asked.extensions
        if wanted:
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert {str(name.value) for name in names} == wanted
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usages) == {PURPOSES[usage] for usage in leaf.usages}


def test_an_unchanged_request_is_kept(shell):
    first = shell(requests.request_program([SERVING, CLIENT]))
    before = keys(shell)
    assert shell(requests.request_program([SERVING, CLIENT])) == first
    assert keys(shell) == before
    assert requests.parse(shell(requests.read_program())) == requests.parse(first)


def test_a_request_for_something_else_has_a_new_key_and_forgets_what_was_signed(shell):
    shell(requests.request_program([SERVING]))
    before = keys(shell)
    shell(requests.store_program(), requests.store_input({SERVING: certificate(SERVING)}))
    assert (shell.directory / "kube-apiserver.crt").is_file()
    shell(requests.request_program([replace(SERVING, dns=(*SERVING.dns, "api.example"))]))
    assert keys(shell) != before
    assert not (shell.directory / "kube-apiserver.crt").exists()


def test_a_signed_certificate_is_stored_beside_its_key(shell):
    shell(requests.request_program([SERVING, CLIENT]))
    signed = {leaf: certificate(leaf) for leaf in (SERVING, CLIENT)}
    shell(requests.store_program(), requests.store_input(signed))
    for leaf, pem in signed.items():
        assert (shell.directory / f"{leaf.name}.crt").read_bytes() == pem


@pytest.mark.parametrize(
    "program",
    [
        requests.request_program([SERVING, CLIENT]),
        requests.read_program(),
        requests.store_program(),
    ],
)
def test_shellcheck_has_nothing_to_say_about_the_programs(program):
    done = subprocess.run(
        ["shellcheck", "-s", "sh", "-"], input=program.encode(), capture_output=True, check=False
    )
    assert done.stdout == b""
    assert done.returncode == 0
