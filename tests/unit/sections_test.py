"""The sections that a program prints."""

import pytest

from provision.model.sections import SectionError, Sections

SAID = Sections.of(
    "Welcome!\n@@ facts\nuid=0\r\n\nno value\n@@ file /a b\nx\n\n@@ file /c\n@@ empty\n"
)


def test_a_section_that_is_missing_is_empty_unless_it_is_required():
    assert SAID.lines("absent") == SAID.lines("empty") == []
    assert SAID.values("absent") == {}
    for name in ("absent", "empty"):
        with pytest.raises(SectionError, match=f"'{name}' is missing"):
            SAID.lines(name, required=True)
    assert "empty" in SAID
    assert "absent" not in SAID


def test_lines_before_the_first_section_and_empty_lines_are_left_out():
    assert SAID.lines("facts", required=True) == ["uid=0", "no value"]
    assert SAID.values("facts") == {"uid": "0"}


def test_sections_of_a_kind_are_found_by_their_names():
    assert {n: SAID.text(s) for n, s in SAID.named("file").items()} == {"/a b": "x\n", "/c": ""}
