"""docs/inventory.md is what the model says."""

import re
from pathlib import Path

from provision.inventory import read, reference

ROOT = Path(__file__).parents[2]


def test_the_committed_reference_is_current():
    committed = (ROOT / "docs" / "inventory.md").read_text("utf-8")
    assert committed == reference.markdown(), (
        "python -m provision.inventory.reference > docs/inventory.md"
    )


def test_the_references_example_is_a_valid_inventory(tmp_path):
    example = re.search(r"```python\n(.*?)```", reference.markdown(), re.S)
    path = tmp_path / "example.py"
    path.write_text(example[1])
    assert [host.name for host in read(path).hosts] == ["m1", "m2", "m3", "w1"]


def test_every_link_of_the_reference_leads_to_a_heading():
    text = reference.markdown()
    headings = set(re.findall(r"^#+ `?([^`\n]+)`?$", text, re.M))
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
