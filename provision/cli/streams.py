"""Standard output and error: an unknown character or a closed stream causes no error."""

from __future__ import annotations

import codecs
import io
import os
import sys

# Glyphs of clusterctl, for terminals that cannot show them.
_PLAIN = {"✓": "+", "✗": "x", "→": "->", "…": "...", "—": "-", "•": "*"}
_DRAWN = range(0x2500, 0x2900)  # lines, blocks and Braille dots, as rich draws them


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  used for output only
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, "*" if ord(c) in _DRAWN else "?") for c in text), error.end


codecs.register_error("clusterctl", _replaced)


def prepare() -> None:
    """Replace characters that the terminal cannot show; give closed streams a place to write."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="clusterctl")
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115


def flush() -> None:
    """Write what is buffered.

    Raises:
        OSError: the reader closed the pipe, or the disk of the file is full.
    """
    sys.stdout.flush()


def give_up() -> None:
    """Discard what is still buffered, so that Python ends without another error."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            try:
                os.dup2(devnull, stream.fileno())
            except (OSError, ValueError):
                continue
    os.close(devnull)
