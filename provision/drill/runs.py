"""clusterctl as a user runs it, in a process of its own: followed, interrupted, killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from provision.model.errors import UnhealthyError

# As the command line writes it where there is no terminal: name, summary, machines.
_PHASE = re.compile(r"(?!warning|error)(?P<name>[a-z][a-z -]*): .* \(.*\)")


@dataclass(frozen=True)
class Ended:
    """A run that has ended. `code` is negative for a signal."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What it wrote to standard error, without its line breaks: they may be anywhere."""
        return " ".join(self.err.split())

    def succeeded(self) -> Ended:
        """Itself.

        Raises:
            UnhealthyError: it failed; with its last lines.
        """
        if self.code != 0:
            raise UnhealthyError(f"exit {self.code}: {self.err[-2000:].strip()}")
        return self


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Run:
    """A command of clusterctl that goes on while it is watched."""

    def __init__(self, command: str, inventory: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "provision", *command.split(), str(inventory), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell's background job ignores Ctrl-C, and all that it starts would too.
            preexec_fn=_heed_ctrl_c,  # noqa: PLW1509  one system call, no lock
        )
        self._lines: list[str] = []
        self._out = ""
        self._news = threading.Condition()
        self._ended = False
        self._readers = [threading.Thread(target=t, daemon=True) for t in (self._err, self._read)]
        for reader in self._readers:
            reader.start()

    def phases(self) -> Iterator[str]:
        """Names of phases, each as it begins; returns when the command has ended."""
        seen = 0
        while True:
            with self._news:
                while not self._ended and len(self._lines) == seen:
                    self._news.wait()
                lines, ended = self._lines[seen:], self._ended
            seen += len(lines)
            for line in lines:
                if match := _PHASE.fullmatch(line):
                    yield match["name"]
            if ended and not lines:
                return

    def within_phase(self, seconds: float) -> None:
        """Return after so many seconds, or when the phase that now runs has ended."""
        with self._news:
            before = self._count()
            self._news.wait_for(lambda: self._ended or self._count() > before, seconds)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to clusterctl alone; what it has started goes on, as after a crash."""
        self._process.send_signal(number)

    def wait(self, timeout: float = 900) -> Ended:
        """Wait for the end.

        Raises:
            UnhealthyError: it did not come.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            message = f"clusterctl did not end within {timeout:.0f} s: {self._text()[-2000:]}"
            raise UnhealthyError(message) from None
        except BaseException:
            # Ctrl-C on the drill does not reach it: it is in a session of its own.
            self._process.kill()
            raise
        for reader in self._readers:
            # What a killed run has started may hold the other end open.
            reader.join(1)
        return Ended(code, self._out, self._text())

    def _count(self) -> int:
        return sum(_PHASE.fullmatch(line) is not None for line in self._lines)

    def _text(self) -> str:
        return "\n".join(self._lines)

    def _err(self) -> None:
        assert self._process.stderr is not None  # noqa: S101
        for line in self._process.stderr:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        self._out = self._process.stdout.read()


def clusterctl(command: str, inventory: Path, *arguments: str) -> Ended:
    """Run a command to its end, whatever that is."""
    return Run(command, inventory, *arguments).wait()
