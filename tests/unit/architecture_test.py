"""docs/architecture.md names every package, in the order of the layers contract."""

import re
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
# Capital letters are for a contributor to replace.
PATH = r"`((?:[a-z_0-9]+/)+[a-z_0-9.]*)`"


def test_the_page_lists_every_package_in_the_order_of_the_layers():
    page = (TOP / "docs" / "architecture.md").read_text()
    table = page.partition("## Packages")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [c["layers"] for c in contracts if c["type"] == "layers"]

    assert named == [name.strip() for layer in layers for name in layer.split("|")]


@pytest.mark.parametrize("name", ["architecture.md", "contributing.md"])
def test_each_file_that_a_page_for_contributors_names_exists(name):
    page = (TOP / "docs" / name).read_text()

    missing = [
        path
        for path in re.findall(PATH, page)
        if not any((top / path).exists() for top in (TOP, TOP / "provision"))
    ]

    assert missing == []
