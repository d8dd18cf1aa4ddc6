"""Put a machine's artifacts in place: one operation, one command."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

from pyinfra.api.command import FileUploadCommand, StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import host

from provision.model import paths

TIMEOUT = 1800  # seconds, for all artifacts together
# The program comes on stdin: it may have a proxy's password, and every user of the machine can read
# argument lists. bash reads all of stdin first, since the program's commands would read it too.
COMMAND = """bash -c 'eval "$(cat)"'"""
# When the connection breaks, the program has to end by itself.
_LIMITED = f"timeout -k 10 {TIMEOUT} {COMMAND}"


@operation()
def take(program: str) -> Generator[StringCommand, None, None]:
    """Run a program of `provision.apply.delivery_programs`.

    Args:
        program: empty if the machine has all artifacts.
    """
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
        program: of `provision.apply.delivery_programs`, with the directory
            `provision.model.paths.ARTIFACTS`.
    """
    yield StringCommand("install", "-d", "-m", "0700", paths.ARTIFACTS)
    for pin, path in files.items():
        yield FileUploadCommand(str(path), f"{paths.ARTIFACTS}/{pin}.zst")
    yield StringCommand(_LIMITED, _stdin=program, _timeout=TIMEOUT)
    yield StringCommand("rm", "-rf", paths.ARTIFACTS)
