"""The contracts between packages: each is broken on purpose in a copy, and the linter must see it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Contract -> a module, an import that it must not have, and what the linter says about that.
BREAKS = {
    "An upper layer knows those below it, never the other way round": (
        "local/cache.py",
        "import provision.commands.down",
        "provision.local is not allowed to import provision.commands",
    ),
    "What decides does no I/O": (
        "desired/flags.py",
        "import subprocess",
        "provision.desired is not allowed to import subprocess",
    ),
    "Only apply, the plug-in for pyinfra and machines' sources speak SSH themselves": (
        "cli/console.py",
        "import paramiko",
        "provision.cli is not allowed to import paramiko",
    ),
    "Only machines on EC2 and shared state speak to AWS": (
        "inventory/hosts.py",
        "import boto3",
        "provision.inventory is not allowed to import boto3",
    ),
}


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """What the linter says of a copy in which every contract is broken."""
    copy = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "provision", copy / "provision", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for module, line, _ in BREAKS.values():
        path = copy / "provision" / module
        path.write_text(f"{path.read_text()}\n\n{line}\n")
    program = "from importlinter.cli import lint_imports_command as main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.mark.parametrize("contract", BREAKS)
def test_an_import_that_a_contract_forbids_is_seen(answer, contract):
    _, _, finding = BREAKS[contract]
    assert f"{contract} BROKEN" in answer
    assert finding in answer


def test_every_contract_is_broken_here(answer):
    assert f"Contracts: 0 kept, {len(BREAKS)} broken." in answer
