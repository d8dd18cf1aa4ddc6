"""Small files and hashes of large ones, from publishers or from a mirror of theirs."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from provision.model.errors import ArtifactError

_PIECE = 1 << 20


def mirrored(base: str, url: str) -> str:
    """`https://HOST/PATH` at a mirror: `BASE/HOST/PATH`."""
    parts = urlsplit(url)
    return f"{base.rstrip('/')}/{parts.netloc}{parts.path}"


@dataclass(frozen=True)
class Web:
    """Where addresses lead to.

    Attributes:
        mirror: base URL of a mirror; without one, the publishers themselves.
        timeout: seconds without a byte until it is given up.
    """

    mirror: str = ""
    timeout: float = 30

    def read(self, url: str) -> bytes:
        """What is at `url`.

        Raises:
            ArtifactError: it is not there, or nobody answers.
        """
        pieces: list[bytes] = []
        self._stream(urllib.request.Request(self._at(url)), pieces.append)  # noqa: S310
        return b"".join(pieces)

    def sha256(self, url: str, report: Callable[[str], None]) -> str:
        """SHA-256 of what is at `url`; nothing of it is kept.

        Raises:
            ArtifactError: as `read`.
        """
        digest, received = hashlib.sha256(), 0

        def take(piece: bytes) -> None:
            nonlocal received
            digest.update(piece)
            received += len(piece)
            report(f"{received >> 20} MiB")

        self._stream(urllib.request.Request(self._at(url)), take)  # noqa: S310
        return digest.hexdigest()

    def json(self, url: str, posted: object = None) -> Any:  # noqa: ANN401
        """The JSON document that is the answer to GET, or to POST of another.

        Raises:
            ArtifactError: as `read`, or it is no JSON.
        """
        # GitHub's API has whole bundles in this version of it.
        headers = {"Accept": "application/json", "X-GitHub-Api-Version": "2022-11-28"}
        data = None
        if posted is not None:
            data = json.dumps(posted).encode()
            headers["Content-Type"] = "application/json"
        pieces: list[bytes] = []
        self._stream(urllib.request.Request(self._at(url), data, headers), pieces.append)  # noqa: S310
        try:
            return json.loads(b"".join(pieces))
        except ValueError as error:
            raise ArtifactError(f"{url}: the answer is no JSON") from error

    def _at(self, url: str) -> str:
        return mirrored(self.mirror, url) if self.mirror else url

    def _stream(self, request: urllib.request.Request, take: Callable[[bytes], None]) -> None:
        url = request.full_url
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:  # noqa: S310
                left = response.headers.get("Content-Length")
                received = 0
                while piece := response.read(_PIECE):
                    take(piece)
                    received += len(piece)
        except urllib.error.HTTPError as error:
            message = f"{url}: the server answered {error.code} {error.reason}"
            raise ArtifactError(message, hint="is there such a release?") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ArtifactError(f"{url}: {reason}", hint="check the network") from error
        if left is not None and received < int(left):
            raise ArtifactError(f"{url}: cut off after {received} of {left} bytes")
