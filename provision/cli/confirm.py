"""Ask the operator before a change, or refuse if standard input is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from provision.model.commands import shell
from provision.model.errors import RefusedError


def may_install(*, yes: bool) -> Callable[[Sequence[str]], None]:
    """Make the question that is asked before a compiler is installed on this computer."""

    def agree(packages: Sequence[str]) -> None:
        what = f"install {', '.join(packages)} on this computer, to compile"
        hint = f"or install them yourself: {shell('apt-get', 'install', *packages)}"
        question = f"Compiling needs {', '.join(packages)}. Install them on this computer?"
        confirm(what, yes=yes, question=question, hint=hint)

    return agree


def confirm(
    what: str, *, yes: bool, question: str = "Continue?", name: str = "", hint: str = ""
) -> None:
    """Return when the operator agrees.

    Args:
        what: the change, as it follows "to": `remove ha`.
        yes: the operator has agreed on the command line.
        question: the question on a terminal.
        name: the text that the operator has to type instead of "y", for a change that loses data.
        hint: a command that shows more before the operator decides.

    Raises:
        RefusedError: standard input is not a terminal, or another name was typed.
        typer.Abort: the operator does not agree.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        message = f"refusing to {what} without confirmation; use --yes"
        raise RefusedError(message, hint=hint)
    if not name:
        typer.confirm(question, abort=True, err=True)
    elif typer.prompt(f"{question} Type the cluster's name, {name}, to continue", err=True) != name:
        message = f"refusing to {what}: another name was typed; nothing was changed"
        raise RefusedError(message)
