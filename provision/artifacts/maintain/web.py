"""Read small files, and hash large ones, at their publishers or at a mirror."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from provision.artifacts.model import mirrored
from provision.model.errors import ArtifactError

_PIECE = 1 << 20


@dataclass(frozen=True)
class Web:
    """Reads URLs, at their publishers or at a mirror.

    Attributes:
        mirror: base URL of a mirror; empty: the publishers themselves.
        timeout: seconds without a byte, after which a read fails.
    """

    mirror: str = ""
    timeout: float = 30

    def read(self, url: str) -> bytes:
        """Read the file at `url`.

        Raises:
            ArtifactError: the file does not exist, or the server does not answer.
        """
        pieces: list[bytes] = []
        self._stream(urllib.request.Request(self._at(url)), pieces.append)  # noqa: S310
        return b"".join(pieces)

    def sha256(self, url: str, report: Callable[[str], None]) -> str:
        """Hash the file at `url` with SHA-256, without keeping it.

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
        """Read a JSON document, by GET, or by POST of another document.

        Raises:
            ArtifactError: as `read`; or the answer is not JSON.
        """
        # This version of GitHub's API answers with whole bundles.
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
            raise ArtifactError(f"{url}: the answer is not JSON") from error

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
            absent = error.code == http.client.NOT_FOUND
            hint = "check that this release exists" if absent else "try again later"
            raise ArtifactError(message, hint=hint) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ArtifactError(f"{url}: {reason}", hint="check the network") from error
        if left is not None and received < int(left):
            raise ArtifactError(f"{url}: cut off after {received} of {left} bytes")
