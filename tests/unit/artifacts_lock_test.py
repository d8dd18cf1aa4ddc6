import sys

import pytest

from provision.artifacts.catalogue import DATA, Catalogue
from provision.artifacts.maintain.edit import with_sums, with_version
from provision.artifacts.maintain.lock import checksum, verifier
from provision.artifacts.maintain.publishers import PUBLISHERS
from provision.artifacts.maintain.web import Web
from provision.model.errors import ArtifactError

SUM, OTHER = "ab" * 32, "cd" * 32


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SUM, SUM),
        (f"{SUM.upper()}\n", SUM),
        (f"{OTHER}  other.tgz\n{SUM}  file.tgz\n", SUM),
        (f"{SUM} *file.tgz\n", SUM),
        (f"{SUM}  ./release/file.tgz\n", SUM),
        (f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{SUM}  file.tgz\n", SUM),
        (f"{OTHER}  other.tgz\n", ""),
        (f"{OTHER}\n{SUM}\n", ""),
        ("", ""),
    ],
)
def test_a_checksum_is_the_one_of_this_file_or_there_is_none(text, found):
    assert checksum(text, "file.tgz") == found


def test_every_component_has_a_publisher():
    known = Catalogue.read()
    # age's proofs are of another kind: its checksums are in the catalogue, and stay.
    assert set(PUBLISHERS) == {"kubernetes", *known.components} - {"age"}
    assert all(pin.sha256 for pin in known.pins("1.36.3").values() if pin.name == "age/age")


def test_a_new_version_has_the_newest_sets_components_and_changes_no_other_line():
    text = DATA.read_text()
    new = with_version(text, "1.100.0")
    known = Catalogue.parse(new)
    assert known.sets["1.100.0"] == known.sets["1.37.1"]
    assert set(text.splitlines()) < set(new.splitlines())
    assert not any(p.sha256 for p in known.pins("1.100.0").values() if "kubernetes/" in p.name)
    # 1.100 is newer than 1.36, though not as a word.
    newer = new.replace('"1.100.0": {etcd: 3.7.1', '"1.100.0": {etcd: 3.7.9').replace(
        '  "3.7.1":', '  "3.7.9":'
    )
    assert Catalogue.parse(with_version(newer, "1.101.0")).sets["1.101.0"]["etcd"] == "3.7.9"


def test_a_version_that_is_there_stays_as_it_is():
    assert with_version(DATA.read_text(), "1.36.3") == DATA.read_text()


def test_checksums_go_where_they_belong_and_comments_stay():
    text = DATA.read_text()
    new = with_sums(text, "1.36.3", {("etcd/etcd", "amd64"): SUM, ("etcd/etcdctl", "amd64"): SUM})
    known = Catalogue.parse(new).pins("1.36.3")
    assert known["etcd/etcdutl", "amd64"].sha256 == SUM
    assert known["etcd/etcd", "arm64"].sha256 not in {"", SUM}
    unchanged = Catalogue.read().pins("1.36.3")
    assert all(known[key] == pin for key, pin in unchanged.items() if "etcd" not in key[0])
    assert [line for line in new.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]


def test_without_the_package_for_signatures_the_error_says_what_to_type(monkeypatch):
    monkeypatch.delitem(sys.modules, "provision.artifacts.maintain.signatures", raising=False)
    monkeypatch.setitem(sys.modules, "sigstore.errors", None)
    with pytest.raises(ArtifactError, match="sigstore, which is not installed") as caught:
        verifier(Web(), None)
    assert caught.value.hint == "pip install 'clusterctl[maintainer]'"
