"""The drill's client of the API: HTTPS with a client certificate, one connection per request."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from pathlib import Path
from typing import Any

import yaml

from provision.local import private_file

TIMEOUT = 5.0  # seconds


class StatusError(http.client.HTTPException):
    """The API answered with another status than 2xx."""

    def __init__(self, status: int, reason: str, text: bytes) -> None:
        super().__init__(f"{status} {reason}: {text[:200].decode(errors='replace')}")
        self.status = status


class Client:
    """Sends requests to one address, as kubectl on the operator's computer does.

    Args:
        kubeconfig: a file that embeds all certificates, as `clusterctl kubeconfig` writes it. The
            client writes certificate and key to a file beside it, mode 0600, because ssl reads
            them only from a file.
        timeout: seconds, for each of: connect, handshake, answer.
    """

    def __init__(self, kubeconfig: Path, host: str, port: int, timeout: float = TIMEOUT) -> None:
        self.host, self.port, self.timeout = host, port, timeout
        config = yaml.safe_load(kubeconfig.read_text())
        user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
        pem = kubeconfig.with_suffix(".pem")
        parts = (user["client-certificate-data"], user["client-key-data"])
        private_file.write(pem, b"".join(base64.b64decode(part) for part in parts))
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        self._tls.load_cert_chain(pem)

    def request(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401
        """Send one request on a new connection, and return the decoded JSON of the answer.

        Raises:
            OSError, http.client.HTTPException: no answer.
            StatusError: a status that is not 2xx.
        """
        connection = http.client.HTTPSConnection(
            self.host, self.port, timeout=self.timeout, context=self._tls
        )
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise StatusError(answer.status, answer.reason, text)
        return json.loads(text)
