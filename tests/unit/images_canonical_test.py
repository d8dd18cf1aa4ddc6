"""Names of images, as container engines complete them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.commands.images import canonical


@pytest.mark.parametrize(
    ("given_name", "full"),
    [
        ("app", "docker.io/library/app:latest"),
        ("app:1", "docker.io/library/app:1"),
        ("me/app", "docker.io/me/app:latest"),
        ("me/team/app:1", "docker.io/me/team/app:1"),
        ("registry.example.com/app:1", "registry.example.com/app:1"),
        ("registry.example.com/me/app", "registry.example.com/me/app:latest"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("docker.io/library/app:1", "docker.io/library/app:1"),
        ("docker.io/app:1", "docker.io/library/app:1"),
    ],
)
def test_a_name_is_completed(given_name, full):
    assert canonical(given_name) == full


part = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,5})?", fullmatch=True)


@given(st.lists(part, min_size=1, max_size=4), st.sampled_from(["", ":1", ":v1.2-3"]))
def test_a_full_name_stays_as_it_is(parts, tag):
    full = canonical("/".join(parts) + tag)

    assert canonical(full) == full
    assert full.count("/") >= 1
