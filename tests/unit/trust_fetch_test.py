from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from provision.commands.trust_fetch import agreed
from provision.model.errors import TrustError
from provision.pki.trust import Trust

TRUST = Trust.create("ha", datetime.now(UTC))
OTHER = Trust.create("ha", datetime.now(UTC))


def test_one_master_is_enough():
    assert agreed({"m2": TRUST}) == TRUST


def test_masters_with_the_same_keys_agree():
    assert agreed({"m1": TRUST, "m2": TRUST, "m3": replace(TRUST)}) == TRUST


def test_masters_with_different_keys_are_refused_naming_sides_and_files():
    odd = replace(TRUST, encryption_key=OTHER.encryption_key)
    with pytest.raises(TrustError) as caught:
        agreed({"m1": TRUST, "m2": odd, "m3": TRUST})
    assert "(m1, m3 against m2)" in caught.value.message
    assert "encryption" in caught.value.message
    assert "ca.crt" not in caught.value.message
    assert TRUST.encryption_key not in caught.value.message


def test_a_key_that_only_some_masters_have_is_a_difference():
    external = replace(TRUST, kubernetes=replace(TRUST.kubernetes, key=None))
    with pytest.raises(TrustError, match="ca.key"):
        agreed({"m1": TRUST, "m2": external})
