import base64
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provision.model.errors import TrustError
from provision.pki import table
from provision.pki.authority import Authority
from provision.pki.leaf import issue, problem
from provision.pki.trust import SIGNING_CA, STATE, Trust
from provision.pki.trust_files import read_trust

NOW = datetime.now(UTC)
PKI = "/etc/kubernetes/pki"


def contents(trust: Trust) -> dict[str, bytes]:
    return {path: file.content for path, file in trust.files().items()}


def by_hand(trust: Trust) -> dict[str, bytes]:
    """As kubeadm or an operator puts them there: no file says what belongs together."""
    return {
        path: content
        for path, content in contents(trust).items()
        if path not in {STATE, SIGNING_CA}
    }


def openssl(*arguments: str | Path) -> str:
    return subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def trust() -> Trust:
    return Trust.create("lab", NOW)


@pytest.fixture(scope="module")
def other() -> Trust:
    return Trust.create("lab", NOW)


def test_a_trust_that_is_written_is_read_back_unchanged(trust: Trust) -> None:
    assert read_trust(contents(trust), datetime.now(UTC)) == trust


def test_files_lie_where_kubeadm_has_them_and_only_what_is_public_is_readable(trust: Trust) -> None:
    modes = {path: file.mode for path, file in trust.files().items()}
    assert modes == {
        f"{PKI}/ca.crt": 0o644,
        f"{PKI}/ca.key": 0o600,
        f"{PKI}/etcd/ca.crt": 0o644,
        f"{PKI}/etcd/ca.key": 0o600,
        f"{PKI}/front-proxy-ca.crt": 0o644,
        f"{PKI}/front-proxy-ca.key": 0o600,
        f"{PKI}/sa.pub": 0o644,
        f"{PKI}/sa.key": 0o600,
        f"{PKI}/encryption.key": 0o600,
        f"{PKI}/network.key": 0o600,
        f"{PKI}/signing-ca.crt": 0o644,
        f"{PKI}/trust.json": 0o600,
    }
    for path, file in trust.files().items():
        assert file.secret is path.endswith((".key", ".json"))
        assert (b"PRIVATE" in file.content) <= file.secret


def test_two_clusters_of_one_name_share_no_secret(trust: Trust, other: Trust) -> None:
    ours, theirs = contents(trust), contents(other)
    assert all(ours[path] != theirs[path] for path in ours)
    assert trust.fingerprint != other.fingerprint


def test_authorities_are_what_openssl_takes_for_authorities(trust: Trust, tmp_path: Path) -> None:
    subjects = set()
    for authority in Authority:
        path = tmp_path / authority
        path.write_bytes(trust.authority(authority).certificate)
        openssl("verify", "-x509_strict", "-check_ss_sig", "-CAfile", path, path)
        text = openssl("x509", "-noout", "-text", "-in", path)
        assert "CA:TRUE, pathlen:1" in text
        assert "Certificate Sign, CRL Sign" in text
        assert "prime256v1" in text
        subjects.add(openssl("x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", path))
        openssl("x509", "-noout", "-in", path, "-checkend", str(3649 * 86400))
    assert subjects == {f"subject=CN=lab {name}\n" for name in Authority}


def test_the_fingerprint_is_the_one_that_openssl_shows(trust: Trust, tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_bytes(trust.kubernetes.certificate)
    shown = openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", path)
    assert shown.split("=")[1].strip().replace(":", "").lower() == trust.fingerprint


def test_the_service_account_keys_are_a_pair(trust: Trust, tmp_path: Path) -> None:
    path = tmp_path / "sa.key"
    path.write_bytes(trust.service_account_key)
    assert openssl("pkey", "-pubout", "-in", path).encode() == trust.service_account_public


def test_the_encryption_key_is_as_long_as_secretbox_wants_it(trust: Trust) -> None:
    assert len(base64.b64decode(trust.encryption_key, validate=True)) == 32


def test_the_text_form_of_a_trust_has_no_secret(trust: Trust) -> None:
    shown = f"{trust!r} {trust} {trust.files()!r} {trust.authority(Authority.ETCD)!r}"
    for path, file in trust.files().items():
        if file.secret and path != STATE:
            assert file.content.splitlines()[-1].decode() not in shown, path
            assert repr(file.content)[2:-1] not in shown, path
    assert "PRIVATE" not in shown


@pytest.mark.parametrize(
    "name",
    [
        "ca.crt",
        "etcd/ca.crt",
        "front-proxy-ca.crt",
        "sa.key",
        "sa.pub",
        "encryption.key",
        "network.key",
    ],
)
def test_a_file_that_must_be_there_is_named_when_it_is_not(trust: Trust, name: str) -> None:
    files = contents(trust)
    del files[f"{PKI}/{name}"]
    with pytest.raises(TrustError, match=f"^{PKI}/{name} is missing$"):
        read_trust(files, datetime.now(UTC))


@pytest.mark.parametrize("authority", list(Authority))
def test_an_authority_without_its_key_is_external(trust: Trust, authority: Authority) -> None:
    files = contents(trust)
    del files[authority.key_path]
    external = read_trust(files, datetime.now(UTC))
    assert external.authority(authority).key is None
    assert contents(external) == files


@pytest.mark.parametrize("authority", list(Authority))
def test_the_key_of_another_authority_is_refused(
    trust: Trust, other: Trust, authority: Authority
) -> None:
    files = contents(trust) | {authority.key_path: contents(other)[authority.key_path]}
    with pytest.raises(
        TrustError, match=f"^{authority.key_path} does not belong to {authority.cert_path}$"
    ):
        read_trust(files, datetime.now(UTC))


def test_a_service_account_key_of_another_cluster_is_refused(trust: Trust, other: Trust) -> None:
    files = contents(trust) | {f"{PKI}/sa.key": other.service_account_key}
    with pytest.raises(TrustError, match=f"^{PKI}/sa.key does not belong to {PKI}/sa.pub$"):
        read_trust(files, datetime.now(UTC))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ca.crt", "is not a PEM certificate"),
        ("etcd/ca.key", "is not an unencrypted RSA or ECDSA private key"),
        ("sa.key", "is not an unencrypted RSA or ECDSA private key"),
        ("sa.pub", "is not a PEM public key"),
        ("encryption.key", "is not 32 bytes in base64"),
        ("network.key", "is not 32 or more letters and digits"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff\x00\xfe", "é".encode() * 40])
def test_a_file_that_is_something_else_is_named(
    trust: Trust, name: str, wrong: str, content: bytes
) -> None:
    files = contents(trust) | {f"{PKI}/{name}": content}
    with pytest.raises(TrustError, match=f"^{PKI}/{name} {wrong}"):
        read_trust(files, datetime.now(UTC))


def test_a_truncated_file_is_named(trust: Trust) -> None:
    for path, content in contents(trust).items():
        if path == SIGNING_CA:  # the same again, for a program that wants it alone
            continue
        files = contents(trust) | {path: content[: len(content) // 2]}
        with pytest.raises(TrustError, match=f"^{path} "):
            read_trust(files, datetime.now(UTC))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_an_authoritys_certificate_with_any_bit_flipped_is_read_or_named(trust: Trust) -> None:
    der = ssl.PEM_cert_to_DER_cert(trust.kubernetes.certificate.decode())
    messages = []
    for bit in range(8 * len(der)):
        damaged = bytearray(der)
        damaged[bit // 8] ^= 1 << bit % 8
        pem = ssl.DER_cert_to_PEM_cert(bytes(damaged)).encode()
        try:
            read_trust(by_hand(trust) | {f"{PKI}/ca.crt": pem}, datetime.now(UTC))
        except TrustError as error:
            messages.append(error.message)
    assert len(messages) > 1000
    assert all(f"{PKI}/ca.crt" in message for message in messages)


def test_a_key_under_a_passphrase_is_refused(trust: Trust, tmp_path: Path) -> None:
    plain, locked = tmp_path / "plain.key", tmp_path / "locked.key"
    plain.write_bytes(trust.kubernetes.key or b"")
    openssl("pkey", "-in", plain, "-aes256", "-passout", "pass:x", "-out", locked)
    files = contents(trust) | {f"{PKI}/ca.key": locked.read_bytes()}
    with pytest.raises(TrustError, match=r"ca\.key is not an unencrypted"):
        read_trust(files, datetime.now(UTC))


def test_a_leaf_in_an_authoritys_place_is_refused(trust: Trust) -> None:
    leaf = issue(table.user("jane", (), 1), trust, NOW)
    files = contents(trust) | {f"{PKI}/ca.crt": leaf.certificate, f"{PKI}/ca.key": leaf.key}
    with pytest.raises(TrustError, match=r"ca\.crt is not the certificate of an authority"):
        read_trust(files, datetime.now(UTC))


def test_an_expired_authority_is_refused() -> None:
    old = Trust.create("lab", NOW - timedelta(days=3650, minutes=1))
    with pytest.raises(TrustError, match=rf"^{PKI}/ca\.crt expired on \d{{4}}-\d\d-\d\d$"):
        read_trust(contents(old), datetime.now(UTC))
    assert read_trust(contents(old), NOW - timedelta(days=1)) == old


def test_an_expired_authority_whose_key_is_elsewhere_is_read_so_that_it_can_be_replaced() -> None:
    old = Trust.create("lab", NOW - timedelta(days=3650, minutes=1))
    files = contents(old)
    for authority in Authority:
        del files[authority.key_path]
    assert read_trust(files, datetime.now(UTC)).external


@pytest.mark.parametrize("extensions", [True, False])
def test_an_rsa_authority_made_by_another_tool_is_used_as_it_is(
    trust: Trust, tmp_path: Path, extensions: bool
) -> None:
    key, certificate = tmp_path / "ca.key", tmp_path / "ca.crt"
    identifier = [] if extensions else ["-addext", "subjectKeyIdentifier=none"]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "9", "-subj", "/CN=kubernetes",
            *identifier, "-keyout", key, "-out", certificate)  # fmt: skip
    files = by_hand(trust) | {
        f"{PKI}/ca.key": key.read_bytes(),
        f"{PKI}/ca.crt": certificate.read_bytes(),
    }
    adopted = read_trust(files, datetime.now(UTC))
    assert by_hand(adopted) == files
    now = datetime.now(UTC)
    leaf = table.user("jane", (), 1)
    issued = issue(leaf, adopted, now)
    assert problem(leaf, issued.certificate.decode(), adopted, now) is None
    path = tmp_path / "jane.crt"
    path.write_bytes(issued.certificate)
    openssl("verify", "-purpose", "sslclient", "-CAfile", certificate, path)
