"""The operator's cache: closed to others, and sealed where that is wanted."""

import pyrage
import pytest

from provision.local import seal
from provision.local.cache import Cache
from provision.model.errors import RefusedError, TrustError
from tests.world import trust


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("provision.local.cache.user_state_path", lambda _: tmp_path / "state")
    monkeypatch.delenv(seal.PASSPHRASE_FILE, raising=False)
    monkeypatch.delenv(seal.AGE_IDENTITY, raising=False)
    return Cache("demo", tmp_path / "demo.py")


def secret(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def contents(cache):
    return b"".join(file.read_bytes() for file in cache.path.rglob("*") if file.is_file())


def test_keys_are_closed_to_others(cache):
    cache.keep(trust())

    assert cache.trust() == trust()
    # Other users may not see the names of clusters either.
    for directory in (cache.path, cache.path.parent, cache.path.parent.parent):
        assert directory.stat().st_mode & 0o777 == 0o700
    for file in cache.path.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize("kind", ["passphrase", "identity"])
def test_sealed_keys_are_nowhere_to_be_read_and_come_back(cache, tmp_path, monkeypatch, kind):
    identity = pyrage.x25519.Identity.generate()
    text, name = {
        "passphrase": ("correct horse\n", seal.PASSPHRASE_FILE),
        "identity": (f"# a comment\n{identity}\n", seal.AGE_IDENTITY),
    }[kind]
    monkeypatch.setenv(name, secret(tmp_path / "key", text))
    cache.keep(trust())

    assert cache.trust() == trust()
    assert b"PRIVATE KEY" not in contents(cache)
    assert trust().encryption_key.encode() not in contents(cache)


def test_keys_that_lay_open_are_sealed_by_the_next_command(cache, tmp_path, monkeypatch):
    cache.keep(trust())
    assert b"PRIVATE KEY" in contents(cache)
    identity = pyrage.x25519.Identity.generate()
    monkeypatch.setenv(seal.AGE_IDENTITY, secret(tmp_path / "key", f"{identity}\n"))

    assert cache.trust() == trust()
    assert b"PRIVATE KEY" not in contents(cache)


def test_a_wrong_passphrase_is_reported(cache, tmp_path, monkeypatch):
    monkeypatch.setenv(seal.PASSPHRASE_FILE, secret(tmp_path / "key", "right"))
    cache.keep(trust())
    secret(tmp_path / "key", "wrong")

    with pytest.raises(TrustError, match="the passphrase does not open"):
        cache.trust()


def test_encrypted_keys_without_a_passphrase_or_a_terminal_name_the_variable_to_set(
    cache, tmp_path, monkeypatch
):
    identity = pyrage.x25519.Identity.generate()
    monkeypatch.setenv(seal.AGE_IDENTITY, secret(tmp_path / "key", f"{identity}\n"))
    cache.keep(trust())
    monkeypatch.delenv(seal.AGE_IDENTITY)

    with pytest.raises(TrustError, match="are encrypted") as refused:
        cache.trust()
    assert seal.AGE_IDENTITY in refused.value.hint
    with pytest.raises(TrustError, match="are encrypted"):
        cache.keep(trust())


@pytest.mark.parametrize("name", [seal.PASSPHRASE_FILE, seal.AGE_IDENTITY])
def test_a_key_file_that_others_can_read_is_refused_with_the_chmod_to_type(
    cache, tmp_path, monkeypatch, name
):
    path = secret(tmp_path / "key", "secret", mode=0o640)
    monkeypatch.setenv(name, path)

    with pytest.raises(RefusedError, match="0640: others can read it") as refused:
        cache.keep(trust())
    assert refused.value.hint == f"chmod 600 {path}"
    assert not cache.path.exists()


def test_an_empty_passphrase_seals_nothing(cache, tmp_path, monkeypatch):
    monkeypatch.setenv(seal.PASSPHRASE_FILE, secret(tmp_path / "key", "\nsecond line"))

    with pytest.raises(RefusedError, match="no passphrase"):
        cache.keep(trust())
