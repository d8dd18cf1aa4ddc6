"""A client at 10 Hz that never tries twice, for as long as something is done to the cluster."""

from __future__ import annotations

import base64
import http.client
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import yaml

PERIOD = 0.1  # seconds
TIMEOUT = 10.0


@dataclass
class Traffic:
    """Reads a ConfigMap through the API's endpoint, over a new connection each time.

    Attributes:
        kubeconfig: with certificates in it.
        failures: what went wrong, and how many seconds after the beginning.
        count: requests that were answered.
    """

    kubeconfig: Path
    path: str = "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt"
    failures: list[str] = field(default_factory=list)
    count: int = 0

    def __enter__(self) -> Self:
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        server = urlsplit(cluster["server"])
        assert server.hostname
        assert server.port
        self._address = (server.hostname, server.port)
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        pair = self.kubeconfig.with_suffix(".pem")
        pair.touch(0o600)
        pair.write_bytes(
            base64.b64decode(user["client-certificate-data"])
            + base64.b64decode(user["client-key-data"])
        )
        self._tls.load_cert_chain(pair)
        self._stopped = threading.Event()
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
        print(f"{self.count} requests in {seconds:.0f} s, {len(self.failures)} failed")

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
        try:
            connection = http.client.HTTPSConnection(
                *self._address, timeout=TIMEOUT, context=self._tls
            )
            try:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failures.append(f"{at:.1f} s: HTTP {answer.status}")
            finally:
                connection.close()
        except OSError as error:
            self.failures.append(f"{at:.1f} s: {error!r}")
        except http.client.HTTPException as error:
            self.failures.append(f"{at:.1f} s: {error!r}")
        self.count += 1
