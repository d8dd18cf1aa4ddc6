"""(template, values) -> bytes. A missing value is an error. Templates use only `if` and `for`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

PACKAGE = Path(__file__).parents[1]


@cache
def _environment() -> Environment:
    # In a wheel the templates are in the package; in a checkout they are beside it.
    places = [PACKAGE / "templates", PACKAGE.parent / "templates"]
    return Environment(
        loader=FileSystemLoader([p for p in places if p.is_dir()]),
        auto_reload=False,
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _template(path: str) -> Template:
    return _environment().get_template(path)


def render(template: str, **values: object) -> bytes:
    """Fill in the template of that path below `templates/`.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not in `values`.
    """
    return _template(template).render(**values).encode()


def text(template: str) -> bytes:
    """Give the file of that path below `templates/`, unchanged: another program fills it in."""
    loader = _environment().loader
    assert loader is not None  # noqa: S101
    source, _, _ = loader.get_source(_environment(), template)
    return source.encode()
