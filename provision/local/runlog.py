"""The log of one run: every command on every machine, with its output; secrets are masked."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self, TextIO

import platformdirs

from provision.local import private_file

MASK = "*****"
_latest: list[RunLog] = []
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)


def latest() -> RunLog | None:
    """The log that this process opened last."""
    return _latest[-1] if _latest else None


class RunLog:
    """The log file of one run. Only its owner can read it.

    The log never has a command's stdin, only its size. Private keys in PEM and the texts given to
    `mask` are replaced wherever they appear. A full disk does not stop the run.

    Attributes:
        lost: why a line could not be written; None: the log is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        private_file.directory(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file: TextIO = os.fdopen(
            descriptor, "a", encoding="utf-8", errors="backslashreplace", buffering=1
        )
        self._masked: set[str] = set()
        self._count = 0
        self.lost: OSError | None = None

    @classmethod
    def create(cls, cluster: str) -> Self:
        """Open a new log under the user's state directory, `logs/<cluster>-<time>.log`."""
        now = time.strftime("%Y%m%dT%H%M%S")
        name = f"{cluster}-{now}-{os.getpid()}.log"
        log = cls(platformdirs.user_state_path("clusterctl") / "logs" / name)
        _latest[:] = [log]
        return log

    def mask(self, secrets: Iterable[str | None]) -> None:
        """Mask these texts from now on."""
        self._masked.update(secret for secret in secrets if secret)

    def command(self, machine: str, command: str) -> str:
        """Log the beginning of a command. Returns the tag for its `result`."""
        self._count += 1
        tag = f"{machine} [{self._count}]"
        self._write(tag, "$", command)
        return tag

    def result(
        self, tag: str, *, code: int, stdout: str, stderr: str, sent: int, seconds: float
    ) -> None:
        """Log a command's output. `sent`: bytes of its stdin."""
        self._write(tag, "|", stdout)
        self._write(tag, "!", stderr)
        self._write(tag, "=", f"exit {code}, {seconds:.3f} s, {sent} bytes of stdin")

    def note(self, subject: str, text: str) -> None:
        """Log another message about a subject."""
        self._write(subject, "-", text)

    def handler(self) -> logging.Handler:
        """Give a handler that writes the logs of libraries here."""
        return _Handler(self)

    def close(self) -> None:
        self._file.close()

    def _write(self, tag: str, mark: str, text: str) -> None:
        if self._file.closed or not text:
            return
        text = _PRIVATE_KEY.sub(rf"\1 {MASK} \2", text)
        for secret in self._masked:
            text = text.replace(secret, MASK)
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1000):03d}"
        lines = text.rstrip("\n").split("\n")
        try:
            self._file.write("".join(f"{stamp} {tag} {mark} {line}\n" for line in lines))
        except OSError as error:
            self.lost = error


class _Handler(logging.Handler):
    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.note(record.name, record.getMessage())
