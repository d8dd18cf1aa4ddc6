"""Bring a machine's artifacts to their places: one operation, one command."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

from pyinfra.api.command import FileUploadCommand, StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host

from provision.model import paths

TIMEOUT = 1800  # seconds, for all artifacts together
# On stdin, since a proxy's password may be in it, and every user of the machine can read argument lists.
# It is read to its end first, since what it starts would read it too.
COMMAND = """bash -c 'eval "$(cat)"'"""
# When the connection breaks, the program has to end by itself.
_LIMITED = f"timeout -k 10 {TIMEOUT} {COMMAND}"


@operation()
def take(program: str) -> Generator[StringCommand, None, None]:
    """Run the program of `provision.apply.delivery_programs`; empty when the machine has all it needs."""
    if not program:
        host.noop("every artifact is there")
        return
    yield StringCommand(_LIMITED, _stdin=program, _timeout=TIMEOUT)


@operation()
def send(
    files: Mapping[str, Path], program: str
) -> Generator[StringCommand | FileUploadCommand, None, None]:
    """Send compressed artifacts to the machine itself, and run the program that takes them there.

    Args:
        files: pin -> file.
        program: of `provision.apply.delivery_programs`, with the directory `provision.model.paths.ARTIFACTS`.
    """
    yield StringCommand("install", "-d", "-m", "0700", paths.ARTIFACTS)
    for pin, path in files.items():
        yield FileUploadCommand(str(path), f"{paths.ARTIFACTS}/{pin}.zst")
    yield StringCommand(_LIMITED, _stdin=program, _timeout=TIMEOUT)
    yield StringCommand("rm", "-rf", paths.ARTIFACTS)
