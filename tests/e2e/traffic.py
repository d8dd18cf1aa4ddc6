"""A client that sends requests at 10 Hz and never retries, while a test changes the cluster."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import yaml

from provision.drill.client import Client

PERIOD = 0.1  # seconds
TIMEOUT = 10.0  # seconds
# Share of requests that may fail or get no answer in time: on an idle computer 0, under load 2 of 2424.
STALLED = 0.005


@dataclass
class Traffic:
    """Reads a ConfigMap through the API's endpoint, over a new connection each time.

    The attributes are complete when the block has ended.

    Attributes:
        kubeconfig: a file that embeds certificates.
        failures: errors, with the seconds since the beginning.
        stalled: when requests began that got no answer within TIMEOUT, in the same seconds.
        count: number of requests that have ended.
    """

    kubeconfig: Path
    path: str = "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt"
    failures: list[str] = field(default_factory=list)
    stalled: list[float] = field(default_factory=list)
    count: int = 0

    def __enter__(self) -> Self:
        config = yaml.safe_load(self.kubeconfig.read_text())
        server = urlsplit(config["clusters"][0]["cluster"]["server"])
        assert server.hostname
        assert server.port
        self._client = Client(self.kubeconfig, server.hostname, server.port, TIMEOUT)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        seconds = time.monotonic() - self._began
        print(
            f"{self.count} requests in {seconds:.0f} s, {len(self.failures)} failed: "
            f"{self.failures}, {len(self.stalled)} stalled: {self.stalled}"
        )

    def went_on(self) -> bool:
        """Whether requests were answered all the time, but for a few."""
        missed = [*self.failures, *self.stalled]
        assert len(missed) <= self.count * STALLED, missed
        return self.count > 50

    def _run(self) -> None:
        askers: list[threading.Thread] = []
        while not self._stopped.wait(PERIOD):
            askers = [asker for asker in askers if asker.is_alive()]
            asker = threading.Thread(target=self._ask)
            askers.append(asker)
            asker.start()
        for asker in askers:
            asker.join()

    def _ask(self) -> None:
        at = time.monotonic() - self._began
        failure, stalled = "", False
        try:
            self._client.request("GET", self.path)
        except TimeoutError:
            stalled = True
        except (OSError, http.client.HTTPException) as error:
            failure = f"{at:.1f} s: {error!r}"
        with self._lock:
            self.count += 1
            if failure:
                self.failures.append(failure)
            if stalled:
                self.stalled.append(round(at, 1))
