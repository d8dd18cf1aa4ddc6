"""A writer at 10 Hz. Each write creates one ConfigMap through the API, from outside the cluster."""

from __future__ import annotations

import http.client
import threading
import time
from typing import Self

from provision.drill.client import Client
from provision.drill.outage import PENDING, Attempt

RATE = 10.0  # Hz
NAMESPACE = "clusterctl-drill"
OBJECTS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


class Writer:
    """Begins a write every 100 ms. It does not wait for the answers to earlier writes.

    Args:
        prefix: first part of the objects' names; it must be different for each writer.
    """

    def __init__(self, client: Client, prefix: str) -> None:
        self._client, self._prefix = client, prefix
        self._lock = threading.Lock()
        self._ended: list[Attempt] = []
        self._pending: dict[str, float] = {}
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._ticker.join()

    def attempts(self) -> list[Attempt]:
        """All attempts so far, in the order in which they began."""
        now = time.monotonic()
        with self._lock:
            pending = [Attempt(n, began, now, PENDING) for n, began in self._pending.items()]
            return sorted([*self._ended, *pending], key=lambda attempt: attempt.began)

    def settle(self) -> list[Attempt]:
        """Stop writing, wait for the answers, and return all attempts."""
        self.__exit__()
        while self._pending:
            time.sleep(0.05)
        return self.attempts()

    def _tick(self) -> None:
        began, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, began + number / RATE - time.monotonic())):
            name = f"{self._prefix}-{number:05}"
            threading.Thread(target=self._write, args=(name,), daemon=True).start()
            number += 1

    def _write(self, name: str) -> None:
        began = time.monotonic()
        with self._lock:
            self._pending[name] = began
        error = ""
        try:
            self._client.request("POST", OBJECTS, {"metadata": {"name": name}})
        except (OSError, http.client.HTTPException) as failed:
            error = str(failed) or type(failed).__name__
        attempt = Attempt(name, began, time.monotonic(), error)
        with self._lock:
            del self._pending[name]
            self._ended.append(attempt)
