"""(template, values) -> bytes. A missing value is an error; templates use no logic but `if` and `for`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PACKAGE = Path(__file__).parents[1]


@cache
def _environment() -> Environment:
    # In a wheel the templates are in the package; in a checkout they are beside it.
    places = [PACKAGE / "templates", PACKAGE.parent / "templates"]
    return Environment(
        loader=FileSystemLoader([p for p in places if p.is_dir()]),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> bytes:
    """The template of that path below `templates/`, filled in.

    Raises:
        jinja2.UndefinedError: the template names a value that was not given.
    """
    return _environment().get_template(template).render(**values).encode()


def text(template: str) -> bytes:
    """The file of that path below `templates/`, unchanged: for templates that another program fills in."""
    loader = _environment().loader
    assert loader is not None  # noqa: S101
    source, _, _ = loader.get_source(_environment(), template)
    return source.encode()
