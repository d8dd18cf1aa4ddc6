"""The key of a cluster's snapshots, and files that it opens."""

import base64
import re
import secrets
from dataclasses import replace

import bech32
import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.local import age_files
from provision.model.errors import RefusedError
from provision.pki import age
from tests.world import trust


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain"
    path.write_bytes(secrets.token_bytes(300_000))
    return path


@given(st.binary(min_size=32, max_size=32))
def test_every_encryption_key_gives_an_identity_that_age_itself_reads(key):
    cluster = replace(trust(), encryption_key=base64.b64encode(key).decode())

    identity = age.identity(cluster)

    assert age.recipient(identity).startswith("age1")
    assert key not in identity.encode()


def test_the_identity_is_the_same_from_every_copy_of_the_trust_and_another_for_another_cluster():
    other = replace(trust(), encryption_key=base64.b64encode(bytes(32)).decode())

    assert age.identity(trust()) == age.identity(replace(trust()))
    assert age.identity(trust()) != age.identity(other)


def test_an_identity_that_age_made_is_written_the_same_from_its_bytes():
    text = str(pyrage.x25519.Identity.generate())
    _, words = bech32.bech32_decode(text)
    key = bytes(bech32.convertbits(words, 5, 8, False))

    assert age._identity(key) == text


def test_a_key_gives_the_identity_that_earlier_versions_derived():
    # Snapshots that they encrypted must still open.
    old = replace(trust(), encryption_key=base64.b64encode(bytes(range(32))).decode())

    assert age.identity(old) == (
        "AGE-SECRET-KEY-1FYFDX90ZMK8YPRZNWHPUFGGPMZKMH7QDQHSMQJ3CU4TVTW2SRPMSS8NLE3"
    )


def test_a_file_encrypted_for_a_key_opens_with_that_key_only(plain, tmp_path):
    mine, other = age.identity(trust()), str(pyrage.x25519.Identity.generate())
    age_files.encrypt(plain, tmp_path / "file", [age.recipient(mine)])

    age_files.decrypt(tmp_path / "file", tmp_path / "back", [other, mine])

    assert (tmp_path / "back").read_bytes() == plain.read_bytes()
    with pytest.raises(RefusedError, match="none of 1 known keys"):
        age_files.decrypt(tmp_path / "file", tmp_path / "no", [other])


def test_a_truncated_file_is_reported_as_truncated(plain, tmp_path):
    mine = age.identity(trust())
    age_files.encrypt(plain, tmp_path / "file", [age.recipient(mine)])
    whole = (tmp_path / "file").read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 210):
        (tmp_path / "file").write_bytes(whole[:length])
        with pytest.raises(RefusedError, match="damaged or cut off"):
            age_files.decrypt(tmp_path / "file", tmp_path / "back", [mine])


def test_a_passphrase_opens_what_it_closed_and_a_wrong_one_is_refused(plain, tmp_path):
    age_files.encrypt_with_passphrase(plain, tmp_path / "file", "correct horse")

    assert age_files.wants_passphrase(tmp_path / "file")
    age_files.decrypt_with_passphrase(tmp_path / "file", tmp_path / "back", "correct horse")
    assert (tmp_path / "back").read_bytes() == plain.read_bytes()
    with pytest.raises(RefusedError, match="not the passphrase"):
        age_files.decrypt_with_passphrase(tmp_path / "file", tmp_path / "back", "battery staple")


@pytest.fixture(scope="module")
def days_of_work():
    """A file that age would take days to open."""
    file = pyrage.passphrase.encrypt(b"", "correct horse")
    return re.sub(rb"(-> scrypt \S+) \d+", rb"\1 40", file)


@pytest.fixture(scope="module")
def too_much(days_of_work):
    """What age says of such a file."""
    with pytest.raises(pyrage.DecryptError) as refused:
        pyrage.passphrase.decrypt(days_of_work, "correct horse")
    return refused.value


def test_a_computer_that_was_busy_when_age_measured_it_is_measured_again(too_much):
    answers = [too_much, too_much, b"content"]

    def opening():
        answer = answers.pop(0)
        if isinstance(answer, bytes):
            return answer
        raise answer

    assert age_files.patiently(opening) == b"content"
    assert answers == []


def test_a_work_factor_that_is_too_high_is_reported_as_such_not_as_damage(
    days_of_work, tmp_path, monkeypatch
):
    monkeypatch.setattr(age_files, "_PAUSE", 0)
    monkeypatch.setattr(age_files, "_ATTEMPTS", 3)
    (tmp_path / "file").write_bytes(days_of_work)

    with pytest.raises(RefusedError, match="a much faster computer"):
        age_files.decrypt_with_passphrase(tmp_path / "file", tmp_path / "back", "correct horse")


def test_a_file_for_a_key_asks_for_no_passphrase_and_another_kind_of_file_is_refused(
    plain, tmp_path
):
    age_files.encrypt(plain, tmp_path / "file", [age.recipient(age.identity(trust()))])

    assert not age_files.wants_passphrase(tmp_path / "file")
    with pytest.raises(RefusedError, match="not encrypted by age"):
        age_files.wants_passphrase(plain)
    with pytest.raises(RefusedError, match="cannot be read"):
        age_files.wants_passphrase(tmp_path / "absent")


def test_a_file_of_identities_is_read_as_age_keygen_writes_it(tmp_path):
    mine = age.identity(trust())
    path = tmp_path / "keys"
    path.write_text(f"# created: today\n# public key: age1...\n{mine}\n\n")

    assert age_files.read_identities(path) == (mine,)
    path.write_text("AGE-SECRET-KEY-1NONSENSE\n")
    with pytest.raises(RefusedError, match="not an identity"):
        age_files.read_identities(path)
