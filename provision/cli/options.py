"""Arguments and options that several commands share."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


Inventory = Annotated[
    Path, typer.Argument(metavar="INVENTORY", help="The inventory file.", show_default=False)
]
OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="A table to read, or JSON for programs.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def print_json(value: Any) -> None:  # noqa: ANN401
    """Write one JSON document to standard output."""
    json.dump(value, sys.stdout, indent=2, sort_keys=True, default=str)
    sys.stdout.write("\n")
