"""SSH host keys are verified, always: nothing in the code can say otherwise."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "provision").rglob("*.py"))
FORBIDDEN = {
    "AutoAddPolicy",
    "WarningPolicy",
    "set_missing_host_key_policy",
    "MissingHostKeyPolicy",
}
LOOSE = re.compile(
    r"StrictHostKeyChecking[= ]*(no|off|accept-new|ask)|UserKnownHostsFile[= ]*/dev/null"
    r"|host_key_checking.*(accept-new|\bno\b)|curl .*((?-i:-k )|--insecure)|wget .*--no-check-certificate",
    re.IGNORECASE,
)


def names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rsplit(".", 1)[-1]


def settings(tree):
    """Keyword -> value, of every call that says how host keys are checked."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and "strict_host_key" in (node.arg or ""):
            yield ast.unparse(node.value)


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def test_no_policy_takes_an_unknown_host_key(path):
    tree = ast.parse(path.read_text())

    assert FORBIDDEN.isdisjoint(names(tree))
    assert set(settings(tree)) <= {"'yes'"}
    assert not [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and LOOSE.search(node.value)
    ]


def test_no_script_or_template_goes_around_a_check():
    texts = [p for d in ("templates", "provision", "scripts") for p in (ROOT / d).rglob("*")]
    shell = [p for p in texts if p.is_file() and p.suffix in {".j2", ".sh", ""}]

    assert len(shell) > 20
    assert [p for p in shell if LOOSE.search(p.read_text())] == []


def test_the_walk_finds_what_it_looks_for():
    tree = ast.parse(
        "client.set_missing_host_key_policy(paramiko.AutoAddPolicy())\nf(strict_host_key='no')"
    )

    assert FORBIDDEN & set(names(tree)) == {"AutoAddPolicy", "set_missing_host_key_policy"}
    assert list(settings(tree)) == ["'no'"]
    assert LOOSE.search("ssh -o StrictHostKeyChecking=no host")
