"""Why sudo refused, in words: each rule has its own hint."""

import pytest

from provision.apply.refusals import raise_if_sudo_refused
from provision.model.cluster import Machine, Role, Ssh
from provision.model.errors import UnreachableError


@pytest.mark.parametrize(
    ("stderr", "hint"),
    [
        ("sudo: sorry, you must have a tty to run sudo\n", "!requiretty"),
        ("sudo: a password is required\n", "NOPASSWD"),
        ("sudo: a terminal is required to read the password\n", "NOPASSWD"),
    ],
)
def test_the_hint_names_the_rule_that_sudo_applied(stderr, hint):
    machine = Machine(
        name="m1", address="192.0.2.1", roles=frozenset({Role.MASTER}),
        ssh=Ssh(hostname="192.0.2.1", user="deploy", sudo=True),
    )  # fmt: skip
    with pytest.raises(UnreachableError) as caught:
        raise_if_sudo_refused(machine, stderr)
    assert hint in caught.value.hint
    assert ("tty" in caught.value.message) == (hint == "!requiretty")
