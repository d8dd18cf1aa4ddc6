"""bench/RESULTS.md: each script writes its own section and keeps the other sections."""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path(__file__).with_name("RESULTS.md")


def sections() -> dict[str, str]:
    """Heading -> text, heading included."""
    text = FILE.read_text() if FILE.exists() else ""
    return {s.partition("\n")[0]: s for s in re.split(r"^(?=#+ )", text, flags=re.M) if s}


def put(heading: str, text: str) -> None:
    """Write a section. It replaces the section with the same heading; a new section comes last."""
    new = {**sections(), heading: f"{heading}\n\n{text.strip()}\n"}
    FILE.write_text("\n".join(section.strip() + "\n" for section in new.values()))
    print(new[heading])
