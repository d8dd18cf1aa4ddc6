"""What is said when a snapshot cannot be written here, and what is kept of its key."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from provision.commands.etcd.snapshot import trust_of, writing
from provision.local import identities, seal
from provision.local.cache import Cache
from provision.model.errors import RefusedError
from provision.model.look import Look
from tests.world import cluster, trust


def test_no_room_on_this_computer_is_not_taken_for_a_broken_connection():
    with (
        pytest.raises(RefusedError, match="No space left on device"),
        writing(),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"data")


def test_a_place_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(RefusedError, match="absent/file"), writing():
        (tmp_path / "absent" / "file").write_bytes(b"data")


@pytest.mark.parametrize("sealed", ["", "by the environment", "by a file"])
def test_the_key_of_snapshots_is_kept_unless_the_cache_is_sealed(tmp_path, monkeypatch, sealed):
    for module in ("cache", "identities"):
        monkeypatch.setattr(f"provision.local.{module}.user_state_path", lambda _: tmp_path)
    for name in (seal.PASSPHRASE_FILE, seal.AGE_IDENTITY):
        monkeypatch.delenv(name, raising=False)
    words = tmp_path / "words"
    words.touch(0o600)
    words.write_text("correct horse\n")
    cache = Cache("demo", tmp_path / "demo.py")
    if sealed:
        monkeypatch.setenv(seal.PASSPHRASE_FILE, str(words))
    if sealed == "by a file":
        cache.keep(trust())
        monkeypatch.delenv(seal.PASSPHRASE_FILE)

    session = SimpleNamespace(known_trust=lambda _: trust(), cluster=cluster(), cache=cache)
    trust_of(session, Look(cluster(), {}))

    assert identities.path().exists() is not bool(sealed)
