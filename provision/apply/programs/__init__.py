"""Shell programs that run on a machine once, sent over SSH. Pure: values in, text out."""

from __future__ import annotations

from functools import cache
from importlib.resources import files as resources

from provision.model.shell import with_parameters


def program(*parts: str, **parameters: str) -> str:
    """Give a program of these files (`down` is `down.sh`), with its parameters in front."""
    return with_parameters("".join(map(_text, parts)), **parameters)


@cache
def _text(name: str) -> str:
    return resources(__package__).joinpath(f"{name}.sh").read_text()
