"""A port of this computer that is forwarded over SSH to a machine's loopback."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

from provision.local import openssh
from provision.model import ports
from provision.model.cluster import Machine


class Tunnel:
    """A tunnel to the proxy on a node's loopback. It is opened again whenever it breaks."""

    def __init__(self, machine: Machine, known_hosts: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        forward = f"127.0.0.1:{self.port}:127.0.0.1:{ports.API_PROXY}"
        self._argv = openssh.command(
            machine.ssh, known_hosts, "-N", "-L", forward,
            "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", "-o", "ExitOnForwardFailure=yes",
            "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3",
        )  # fmt: skip
        self._stop = threading.Event()
        self._ssh: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._ssh is not None:
            self._ssh.terminate()
        self._keeper.join()

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._ssh = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if self._stop.is_set():
                self._ssh.terminate()
            self._ssh.wait()
            time.sleep(0.1)
