"""A cluster's cache, in a directory on the operator's computer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from platformdirs import user_state_path

from provision.local import private_file, seal
from provision.model import paths
from provision.model.errors import TrustError
from provision.model.holder import Holder
from provision.pki.trust import Trust
from provision.pki.trust_files import read_trust


def identity(name: str, inventory: Path) -> str:
    """Give `NAME-HASH`, hashed from the inventory's path: two checkouts never share a cache."""
    digest = hashlib.sha256(f"{inventory}\0{name}".encode()).hexdigest()
    return f"{name}-{digest[:8]}"


class Cache:
    """Files under `~/.local/state/clusterctl/clusters/<identity>`, 0700 and 0600.

    Attributes:
        where: name of the shared state; empty: the cache is not shared.
    """

    where = ""

    def __init__(self, name: str, inventory: Path) -> None:
        self.path = user_state_path("clusterctl") / "clusters" / identity(name, inventory)

    @property
    def _sealed(self) -> Path:
        return self.path / "pki.age"

    @property
    def sealed(self) -> bool:
        """Tell whether the keys are encrypted, or will be."""
        return self._sealed.is_file() or seal.wanted() is not None

    def directory(self) -> Path:
        private_file.directory(self.path)
        self.path.chmod(0o700)
        return self.path

    @property
    def known_hosts(self) -> Path:
        return self.directory() / "known_hosts"

    @property
    def _open(self) -> Path:
        root = self.path / "pki"
        # If a run was stopped between two renames, only the former directory exists.
        return root if root.is_dir() or not self._former.is_dir() else self._former

    @property
    def _former(self) -> Path:
        return self.path / "pki.old"

    @property
    def pki(self) -> str:
        """Give the present path of the keys."""
        return str(self._sealed if self._sealed.is_file() else self._open)

    def trust(self) -> Trust | None:
        """Read the trust that clusterctl saw last; None: the cache has no trust.

        Raises:
            TrustError: the files do not fit together.
        """
        wanted = seal.wanted()
        if self._sealed.is_file():
            opener = wanted or seal.asked(self._sealed)
            files = unpacked(opener.open(self._sealed.read_bytes()))
        elif self._open.is_dir():
            files = {
                f"{paths.PKI}/{file.relative_to(self._open).as_posix()}": file.read_bytes()
                for file in self._open.rglob("*")
                if file.is_file()
            }
        else:
            return None
        try:
            trust = read_trust(files, datetime.now(UTC))
        except TrustError as error:
            error.hint = f"move {self.path} away: it is a cache, and the masters have the original"
            raise
        if wanted and self._open.is_dir():
            self.keep(trust)
        return trust

    def keep(self, trust: Trust) -> None:
        """Write the trust. Other users can never read it; it is encrypted if the operator wants it.

        Encrypted keys stay encrypted, with the passphrase or key that opened them.
        """
        wanted = seal.wanted()
        if wanted is None and self._sealed.is_file():
            wanted = seal.asked(self._sealed)
            wanted.open(self._sealed.read_bytes())
        if wanted is None:
            self._replace({name: file.content for name, file in trust.files().items()})
            return
        private_file.write(self.directory() / self._sealed.name, wanted.close(packed(trust)))
        _remove(self._open)

    def first(self, trust: Trust) -> Trust:
        """Write a new cluster's trust, and give the trust that the cache has after that."""
        self.keep(trust)
        return trust

    def _replace(self, files: Mapping[str, bytes]) -> None:
        """Replace all files together: files of two generations do not fit together."""
        root, new, old = (self.directory() / name for name in ("pki", "pki.new", self._former.name))
        _remove(new)
        for name, content in files.items():
            private_file.write(new / PurePosixPath(name).relative_to(paths.PKI), content)
        if root.is_dir():
            _remove(old)
            root.rename(old)
        new.rename(root)
        _remove(old)

    def forget(self) -> None:
        """Remove the cache, after the cluster was removed."""
        _remove(self.path)

    @contextmanager
    def hold(self, me: Holder) -> Iterator[None]:  # noqa: ARG002
        """Hold the lock of a shared state; this cache is not shared."""
        yield

    def holder(self) -> Holder | None:
        """Give the holder of a shared state's lock; None here."""
        return None

    def free(self) -> None:
        """Remove the lock of a shared state; there is none here."""


def packed(trust: Trust) -> bytes:
    """Pack all keys as one text, to encrypt it."""
    return json.dumps(
        {name: file.content.decode() for name, file in trust.files().items()}
    ).encode()


def unpacked(content: bytes) -> dict[str, bytes]:
    """Unpack path -> content of all keys."""
    return {name: text.encode() for name, text in json.loads(content).items()}


def _remove(directory: Path) -> None:
    if directory.is_dir():
        for file in sorted(directory.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        directory.rmdir()
