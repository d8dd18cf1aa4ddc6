"""Download release files to the user's cache. Only whole and verified files are kept."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from provision.artifacts import cache
from provision.artifacts.model import ArtifactSet, Ready
from provision.local.progress import Progress
from provision.model.errors import ArtifactError

_PIECE = 1 << 20
_AGAIN = (408, 429)


@dataclass(frozen=True)
class Http:
    """Limits of a download: its timeout and its number of attempts.

    Attributes:
        timeout: seconds without a byte, after which an attempt fails.
        attempts: the most attempts for one file.
        pause: seconds before the second attempt; doubled for each further attempt.
    """

    timeout: float = 30
    attempts: int = 3
    pause: float = 1


class _AttemptError(Exception):
    """An attempt that failed, and whether another attempt can succeed."""

    def __init__(self, cause: str, *, again: bool = True) -> None:
        super().__init__(cause)
        self.again = again


def fetch(artifacts: ArtifactSet, progress: Progress, http: Http = Http()) -> ArtifactSet:
    """Download the artifacts that have no local file yet.

    Args:
        artifacts: as prepared. Artifacts with a local file stay as they are.

    Raises:
        ArtifactError: a file is missing or cut off, or its SHA-256 is not the pinned one. The
            message has the URL and both hashes. The file is not kept.
    """
    remote = {r.url: f"{Path(r.url).name} {r.arch}" for r in artifacts.items.values() if r.url}
    if not remote:
        return artifacts
    items = dict(artifacts.items)
    with progress.phase("fetch", "download release files", tuple(remote.values())):
        for key, ready in artifacts.items.items():
            if ready.local is None and ready.url is not None:
                items[key] = _local(ready, remote[ready.url], progress, http)
        for subject in remote.values():
            progress.done(subject)
    return ArtifactSet(artifacts.source, items)


def in_cache(ready: Ready) -> Ready:
    """Give the artifact with its local file if an earlier `fetch` downloaded it; else as it is."""
    if ready.url is None:
        return ready
    file = _place(ready) if ready.member is None else _member(ready, ready.member)
    pin = cache.recorded(file)
    return replace(ready, pin=pin, local=file, url=None, member=None) if pin else ready


def _place(ready: Ready) -> Path:
    return cache.root() / "downloads" / ready.pin / (ready.url or "").rpartition("/")[2]


def _member(ready: Ready, member: str) -> Path:
    return _place(ready).parent / "members" / member


def _local(ready: Ready, subject: str, progress: Progress, http: Http) -> Ready:
    url, file = ready.url or "", _place(ready)
    with cache.locked(
        file.parent / "lock",
        lambda: progress.update(subject, "another clusterctl downloads it; waiting"),
    ):
        if cache.recorded(file) != ready.pin:
            try:
                _download(url, ready.pin, file, lambda text: progress.update(subject, text), http)
            except ArtifactError:
                progress.done(subject, "failed", failed=True)
                raise
        if ready.member is not None:
            archive, file = file, _member(ready, ready.member)
            if cache.recorded(file) is None:
                _extract(archive, ready.member, file)
    pin = cache.recorded(file) or cache.record(file)
    return replace(ready, pin=pin, local=file, url=None, member=None)


def _download(url: str, sha256: str, file: Path, report: Callable[[str], None], http: Http) -> None:
    pause = http.pause
    for attempt in range(1, http.attempts + 1):
        try:
            with cache.replacing(file) as temporary:
                got = _attempt(url, temporary, report, http.timeout)
                if got != sha256:
                    raise ArtifactError(
                        f"{url}: wrong hash: expected SHA-256 {sha256}, got {got}",
                        hint="the publisher replaced the file, or a proxy changed it; it was not"
                        " kept. Try again without the proxy",
                    )
            break
        except _AttemptError as error:
            if not error.again or attempt == http.attempts:
                times = f" ({attempt} attempts)" if attempt > 1 else ""
                check = "check the network" if error.again else "check the address"
                raise ArtifactError(
                    f"{url}: {error}{times}; the file with SHA-256 {sha256} was not received",
                    hint=f'{check}, or set "artifacts" in the inventory to {{"source": "build"}} or'
                    " to a bundle that was made on another computer",
                ) from error
            report(f"{error}; trying again")
            time.sleep(pause)
            pause *= 2
    cache.record(file)


def _attempt(url: str, file: Path, report: Callable[[str], None], timeout: float) -> str:
    """Write the file at `url` to `file`, and return its SHA-256."""
    digest, received = hashlib.sha256(), 0
    with file.open("wb") as out:
        for piece in _pieces(url, timeout):
            digest.update(piece)
            out.write(piece)
            received += len(piece)
            report(f"{received >> 20} MiB")
    return digest.hexdigest()


def _pieces(url: str, timeout: float) -> Iterator[bytes]:
    """Receive the file at `url`. An OSError here is one of the network: the caller writes the file."""
    received = 0
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:  # noqa: S310
            length = response.headers.get("Content-Length")
            while piece := response.read(_PIECE):
                received += len(piece)
                yield piece
    except urllib.error.HTTPError as error:
        again = error.code >= http.client.INTERNAL_SERVER_ERROR or error.code in _AGAIN
        raise _AttemptError(
            f"the server answered {error.code} {error.reason}", again=again
        ) from error
    except TimeoutError as error:
        raise _AttemptError(f"no answer for {timeout:g} s after {received} bytes") from error
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(f"{getattr(error, 'reason', error)} after {received} bytes") from error
    if length is not None and received < int(length):
        raise _AttemptError(f"cut off after {received} of {length} bytes")


def _extract(archive: Path, member: str, file: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            names = {name.removeprefix("./"): name for name in tar.getnames()}
            entry = tar.getmember(names[member])
            with (
                cache.replacing(file) as temporary,
                temporary.open("wb") as out,
                closing(tar.fileobject(tar, entry)) as source,
            ):
                shutil.copyfileobj(source, out, _PIECE)
    except (KeyError, tarfile.TarError) as error:
        raise ArtifactError(
            f"{archive.name} has no {member} in it",
            hint="correct `members` of this release in catalogue.yaml",
        ) from error
    file.chmod(0o755)
    cache.record(file)


def answers(url: str, seconds: float) -> bool:
    """Tell whether the server has this file. The name look-up counts towards `seconds`."""
    found = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
                found.set()
        except (OSError, http.client.HTTPException):
            return

    # A call to a resolver that does not answer cannot be interrupted: the thread is left running.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found.is_set()
