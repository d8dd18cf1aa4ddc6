"""The one place that turns an exception into a message, an entry in the log, and an exit code."""

from __future__ import annotations

import shlex
import signal
import sys
import traceback
from typing import cast

import typer
from rich.text import Text

from provision.cli import streams
from provision.cli.console import err
from provision.model.errors import (
    EXIT_CLOSED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    ClusterctlError,
)

# Typer includes its own copy of click. This is click's base class of all usage errors.
ClickException: type[BaseException] = typer.BadParameter.__bases__[0].__bases__[0]

_SIGNALLED = {128 + number for number in (signal.SIGHUP, signal.SIGTERM)}


def report(error: BaseException, arguments: list[str]) -> int:
    """Show an error on standard error, and write its traceback to the log.

    Args:
        error: the error that ended the command.
        arguments: the arguments of the command line.

    Returns:
        The exit code; see `provision.model.errors`.
    """
    try:
        return _report(error, arguments)
    except OSError:  # standard error is closed, or its disk is full
        streams.give_up()
        return _code(error)


def _report(error: BaseException, arguments: list[str]) -> int:
    if isinstance(error, ClickException):
        cast("typer.BadParameter", error).show()
        return EXIT_USAGE
    if isinstance(error, BrokenPipeError) and error.filename is None:
        # The reader of the output needs no more.
        streams.give_up()
        return EXIT_CLOSED
    if isinstance(error, SystemExit) and error.code not in _SIGNALLED:
        return _code(error)
    if isinstance(error, (typer.Abort, KeyboardInterrupt, SystemExit)):
        _show_stopped(arguments)
        return _code(error)
    if isinstance(error, ClusterctlError):
        from provision.cli.views.errors import show_error

        log_traceback(error)
        show_error(error)
        return error.exit_code
    _show_other(error)
    return _code(error)


def _code(error: BaseException) -> int:
    if isinstance(error, (typer.Abort, KeyboardInterrupt)):
        return EXIT_INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return error.exit_code if isinstance(error, ClusterctlError) else ClusterctlError.exit_code


def _show_stopped(arguments: list[str]) -> None:
    from provision.local import changes

    again = shlex.join(["clusterctl", *arguments])
    err.print()
    if touched := changes.begun():
        state = f"may have changed {' and '.join(touched)}; no file is half written"
        err.print(Text(f"Stopped. The command {state}."), soft_wrap=True)
        err.print(Text(f"The same command continues: {again}", "yellow"), soft_wrap=True)
    else:
        err.print(Text("Stopped. The command has changed no machine."), soft_wrap=True)
        err.print(Text(f"To run it again: {again}", "yellow"), soft_wrap=True)


def _show_other(error: BaseException) -> None:
    """Show an error that is not clusterctl's own."""
    from provision.local import changes, disk

    of_file = disk.explain(error) if isinstance(error, OSError) else None
    if of_file:
        message, hint = of_file
    elif isinstance(error, UnicodeDecodeError):
        message = f"a file is not text in UTF-8: {error}"
        hint = "The traceback in the log names the file. Convert the file to UTF-8."
    else:
        message = f"clusterctl met an error that it does not know: {_words(error)}"
        hint = ""
    err.print(Text(message, "bold red"), soft_wrap=True)
    if hint:
        err.print(Text(hint, "yellow"), soft_wrap=True)
    if touched := changes.begun():
        text = f"The command may have changed {' and '.join(touched)}; the same command continues."
        err.print(Text(text), soft_wrap=True)
    err.print(Text(log_traceback(error, make=True), "dim"), soft_wrap=True)


def _words(error: BaseException) -> str:
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def log_traceback(error: BaseException, *, make: bool = False) -> str:
    """Write the traceback of an error to the log of this run.

    Args:
        make: begin a log if this run has no log yet.

    Returns:
        A sentence that names the log; if no log can be written, the line of the program instead.
    """
    from provision.local import runlog

    try:
        log = runlog.latest() or (runlog.RunLog.create("clusterctl") if make else None)
        if log is None:
            return ""
        log.note("clusterctl", "".join(traceback.format_exception(error)))
        if log.lost is None:
            return f"traceback: {log.path}"
        reason = log.lost.strerror
    except Exception as problem:  # noqa: BLE001  the reason why there is no log
        reason = problem.strerror if isinstance(problem, OSError) else _words(problem)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
    return f"The log cannot be written ({reason}). The error arose at {where}."


def quiet_greenlets() -> None:
    """Log errors of greenlets and threads. The command that waits for them reports them."""
    import threading

    import gevent

    def print_exception(_: object, kind: type[BaseException], value: object, trace: object) -> None:
        error = value if isinstance(value, BaseException) else kind()
        log_traceback(error.with_traceback(trace))  # type: ignore[arg-type]

    gevent.get_hub().print_exception = print_exception
    threading.excepthook = lambda seen: print_exception(
        None, seen.exc_type, seen.exc_value, seen.exc_traceback
    )
    sys.unraisablehook = lambda seen: print_exception(
        None, seen.exc_type, seen.exc_value, seen.exc_traceback
    )
