"""Where copies of snapshots go, from what the inventory says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.model.backup_place import S3Place, SshPlace, place
from provision.model.settings.backup import Backup


@pytest.mark.parametrize(
    ("to", "found"),
    [
        ("ssh://a@h.example.org/srv/x", SshPlace("a", "h.example.org", 22, "/srv/x")),
        ("ssh://a@192.0.2.9:2222/srv", SshPlace("a", "192.0.2.9", 2222, "/srv")),
        ("s3://bucket", S3Place("https://s3.us-east-1.amazonaws.com", "bucket", "")),
        ("s3://bucket/a/b", S3Place("https://s3.us-east-1.amazonaws.com", "bucket", "a/b/")),
        ("", None),
        ("/srv", None),
        ("ssh://h/srv", None),
        ("ssh://a@h", None),
        ("ftp://a@h/srv", None),
    ],
)
def test_a_place_is_read_from_its_url(to, found):
    assert place(Backup(to=to)) == found


def test_a_custom_endpoint_counts_with_or_without_a_slash():
    for url in ("http://minio:9000", "http://minio:9000/"):
        found = place(Backup(to="s3://bucket/x", s3_endpoint=url))
        assert found == S3Place("http://minio:9000", "bucket", "x/")


def test_a_host_on_another_port_is_known_as_openssh_writes_it():
    assert SshPlace("a", "h", 22, "/x").known_as == "h"
    assert SshPlace("a", "h", 2222, "/x").known_as == "[h]:2222"


@given(st.sampled_from(["ssh://a@h/", "s3://bucket/"]), st.text(max_size=20))
def test_a_place_with_a_character_special_to_the_shell_is_refused(scheme, rest):
    if place(Backup(to=scheme + rest)):
        assert not set(rest) & set(" \t\n'\"\\`$;&|<>()*?[]{}~#!%")
