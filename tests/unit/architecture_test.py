"""What pages for contributors and operators list is what the tree has."""

import re
import tomllib
from pathlib import Path

import pytest

from provision.apply.phases import UP
from provision.artifacts.catalogue import catalogue
from provision.artifacts.recipes import buildable
from provision.model import ports

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


def test_the_page_lists_the_phases_of_up_in_their_order():
    page = (TOP / "docs" / "architecture.md").read_text()
    table = page.partition("| Phase |")[2].partition("\n\n")[0]
    rows = [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]]

    assert [name for row in rows for name in row.split(", ")] == [phase.name for phase in UP]


def test_the_page_lists_every_port():
    page = (TOP / "docs" / "architecture.md").read_text()
    table = page.partition("## Ports")[2]
    named = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    # A second etcd listens on these on loopback, while a snapshot is checked.
    scratch = {ports.ETCD_SCRATCH, ports.ETCD_SCRATCH_PEER}

    assert named == {n for n in vars(ports).values() if isinstance(n, int)} - scratch


def test_the_page_about_upgrades_lists_every_minor_version_and_every_version_that_compiles():
    page = (TOP / "docs" / "upgrading.md").read_text()
    *minors, last = dict.fromkeys(v.rpartition(".")[0] for v in catalogue().versions)
    *builds, oldest = buildable()

    assert f"The catalogue contains releases of {', '.join(minors)} and {last}." in page
    assert f"The source `build` has only {', '.join(builds)} and {oldest}." in page
