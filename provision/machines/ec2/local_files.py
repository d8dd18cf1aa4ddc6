"""What this computer keeps of a cluster on EC2: keys, and the places of removed machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import platformdirs

from provision.local import private_file
from provision.machines.ec2.model import HostKey
from provision.machines.ssh_keys import new_key

_HOST_KEY, _PLACE = ".host_key", ".place"  # suffixes of files for machines that do not exist yet
_SSM = "aws ssm start-session --region {region} --target %h --document-name AWS-StartSSHSession"


@dataclass(frozen=True)
class LocalFiles:
    """The directory of one cluster, 0700."""

    account: str
    region: str
    cluster: str

    @cached_property
    def _directory(self) -> Path:
        ec2 = platformdirs.user_state_path("clusterctl") / "ec2"
        path = ec2 / f"{self.account}-{self.region}-{self.cluster}"
        private_file.directory(path)
        return path

    @property
    def client_key(self) -> Path:
        """The private key that logs in to every machine."""
        return self._directory / "id_ed25519"

    def public_key(self) -> str:
        """Read the public half of the client's key; make the key if there is none."""
        private = self.client_key
        public = private.with_suffix(".pub")
        if not private.exists():
            key = new_key()
            private_file.write(public, f"{key.public}\n".encode())
            private_file.write(private, key.private)
        return public.read_text().strip()

    def host_keys(self, names: Iterable[str]) -> dict[str, HostKey]:
        """Make host keys of machines that do not exist yet.

        They are kept until the machines exist: a run after a crash must ask for the same machine.
        """
        keys = {}
        for name in names:
            file = self._directory / f"{name}{_HOST_KEY}"
            if not file.exists():
                key = new_key()
                private_file.write(file, key.private + b"\n" + key.public.encode())
            private, _, public = file.read_text().strip().rpartition("\n")
            keys[name] = HostKey(private, public)
        return keys

    def forget_host_keys(self, names: Iterable[str]) -> None:
        for name in names:
            (self._directory / f"{name}{_HOST_KEY}").unlink(missing_ok=True)

    def places(self) -> dict[str, tuple[str, str]]:
        """Read zone and address of machines that were removed and not made again."""
        found = {}
        for file in self._directory.glob(f"*{_PLACE}"):
            zone, address = file.read_text().split()
            found[file.name.removesuffix(_PLACE)] = (zone, address)
        return found

    def keep_place(self, name: str, zone: str, address: str) -> None:
        private_file.write(self._directory / f"{name}{_PLACE}", f"{zone} {address}\n".encode())

    def forget_places(self, names: Iterable[str]) -> None:
        for name in names:
            (self._directory / f"{name}{_PLACE}").unlink(missing_ok=True)

    def ssm_config(self) -> Path:
        """Write the configuration of SSH over AWS Systems Manager."""
        path = self._directory / "ssh_config"
        command = _SSM.format(region=self.region)
        private_file.write(
            path, f"Host i-*\n  ProxyCommand {command} --parameters portNumber=%p\n".encode()
        )
        return path

    def remove(self) -> None:
        for file in self._directory.glob("*"):
            file.unlink()
        self._directory.rmdir()
