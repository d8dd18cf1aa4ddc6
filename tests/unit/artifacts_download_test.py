"""Errors while a file is received: of the network, and of this computer's disk."""

import errno
import hashlib
import io
import os
import ssl
import urllib.request
from email.message import Message
from pathlib import Path

import pytest

from provision.artifacts import download, fetch
from provision.artifacts.download import Http
from provision.artifacts.model import ArtifactSet, Ready
from provision.local.progress import Silent
from provision.model.errors import ArtifactError

CONTENT = b"kubelet" * 1000
QUICK = Http(timeout=1, attempts=2, pause=0)
UNREACHABLE = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))


class Response(io.BytesIO):
    """A response that fails with `error` when its content is read."""

    def __init__(self, error):
        super().__init__(CONTENT)
        self.error = error
        self.headers = Message()

    def read(self, size=-1):
        if self.error:
            raise self.error
        return super().read(size)


@pytest.fixture
def received(monkeypatch, tmp_path):
    """Gives a function that fetches the file; each attempt meets the next of these errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pin = hashlib.sha256(CONTENT).hexdigest()
    ready = Ready(
        "kubernetes/kubelet", "1.37.1", "amd64", pin, url="https://dl.example.org/kubelet"
    )
    key = (ready.name, ready.arch)

    def receive(*errors):
        left = iter(errors)
        monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Response(next(left)))
        return fetch(ArtifactSet("official", {key: ready}), Silent(), QUICK).items[key].local

    return receive


@pytest.mark.parametrize("error", [UNREACHABLE, ssl.SSLError(1, "bad record mac")])
def test_a_network_that_breaks_in_the_middle_is_tried_again(error, received):
    assert received(error, None).read_bytes() == CONTENT


def test_a_network_that_stays_broken_is_not_called_an_error_of_the_file(received):
    with pytest.raises(ArtifactError, match=r"No route to host after 0 bytes \(2 attempts\)"):
        received(UNREACHABLE, UNREACHABLE)


def test_a_full_disk_is_an_error_of_the_file(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Response(None))
    with pytest.raises(OSError, match="No space left"):
        download._attempt("https://dl.example.org/kubelet", Path("/dev/full"), str, 1)
