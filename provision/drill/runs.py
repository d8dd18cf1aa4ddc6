"""Run clusterctl in its own process, as an operator does; follow, interrupt and kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gevent.fileobject import FileObject

from provision.local.events import Event
from provision.model.errors import UnhealthyError


@dataclass(frozen=True)
class Ended:
    """A run that has ended. `code` is negative if a signal ended it."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Standard error without line breaks, which depend on the width of the terminal."""
        return " ".join(self.err.split())

    def succeeded(self) -> Ended:
        """Return this run.

        Raises:
            UnhealthyError: the run failed; the message ends with its last lines.
        """
        if self.code != 0:
            raise UnhealthyError(f"exit {self.code}: {self.err[-2000:].strip()}")
        return self


def _accept_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Run:
    """A command of clusterctl that runs while the drill watches it."""

    def __init__(self, command: str, inventory: Path, *arguments: str) -> None:
        events, write = os.pipe()
        program = [sys.executable, "-m", "provision", "--events", f"/dev/fd/{write}"]
        self._process = subprocess.Popen(
            [*program, *command.split(), str(inventory), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(write,),
            start_new_session=True,
            # A background job of a shell ignores Ctrl-C, and so do the processes that it starts.
            preexec_fn=_accept_ctrl_c,  # noqa: PLW1509  one system call, no lock
        )
        os.close(write)
        self._events: list[tuple[Event, str]] = []
        self._out, self._err = "", ""
        self._news = threading.Condition()
        self._ended = False
        readers = (self._read_events, events), (self._read_out,), (self._read_err,)
        self._readers = [
            threading.Thread(target=reader, args=arguments, daemon=True)
            for reader, *arguments in readers
        ]
        for reader in self._readers:
            reader.start()

    def phases(self) -> Iterator[str]:
        """Names of phases, each when it begins. Returns when the command has ended."""
        seen = 0
        while True:
            with self._news:
                while not self._ended and len(self._events) == seen:
                    self._news.wait()
                events, ended = self._events[seen:], self._ended
            seen += len(events)
            yield from (phase for event, phase in events if event is Event.BEGAN)
            if ended and not events:
                return

    def within_phase(self, phase: str, seconds: float) -> None:
        """Return after these seconds, or when the phase has ended."""
        ends = {(Event.ENDED, phase), (Event.FAILED, phase)}
        with self._news:
            self._news.wait_for(lambda: self._ended or ends & {*self._events}, seconds)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to clusterctl alone. The processes that it started continue."""
        self._process.send_signal(number)

    def wait(self, timeout: float = 900) -> Ended:
        """Wait until the command ends.

        Raises:
            UnhealthyError: it did not end in time.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            message = f"clusterctl did not end within {timeout:.0f} s: {self._err[-2000:]}"
            raise UnhealthyError(message) from None
        except BaseException:
            # Ctrl-C for the drill does not reach the command, which has a session of its own.
            self._process.kill()
            raise
        for reader in self._readers:
            # Processes that a killed run started may hold the other end of the pipe open.
            reader.join(1)
        return Ended(code, self._out, self._err)

    def _read_events(self, descriptor: int) -> None:
        # A plain file would block all greenlets of this process, and these threads are greenlets.
        with FileObject(descriptor, "r", encoding="utf-8") as file:
            for line in file:
                seen = json.loads(line)
                with self._news:
                    self._events.append((Event(seen["event"]), seen["phase"]))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _read_err(self) -> None:
        assert self._process.stderr is not None  # noqa: S101
        for line in self._process.stderr:
            self._err += line

    def _read_out(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        self._out = self._process.stdout.read()


def run_clusterctl(command: str, inventory: Path, *arguments: str) -> Ended:
    """Run a command and wait until it ends. It does not raise if the command fails."""
    return Run(command, inventory, *arguments).wait()
