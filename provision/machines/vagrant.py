"""Vagrant: machines that Vagrant makes from the inventory.

The inventory is the only list of machines. When clusterctl calls Vagrant, vagrant/Vagrantfile reads
the machines from a file with the format of `clusterctl machines list INVENTORY -o json`. All local
files are in the inventory's lab directory (see `provision.machines.lab`), 0700:

    machines.json   the machines for the Vagrantfile, with their addresses
    vagrant/        Vagrant's own files (VAGRANT_DOTFILE_PATH)
    ssh_config      the output of `vagrant ssh-config`
    host_keys/NAME  public host keys, read over Vagrant's connection; none for containers
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

from provision.inventory import Draft
from provision.local import private_file
from provision.local.progress import Progress
from provision.machines import MachineStatus
from provision.machines.lab import Lab
from provision.machines.vagrant_command import (
    ABSENT,
    VagrantCommand,
    parse_ssh_config,
    require,
    split_ssh_config,
)
from provision.machines.vagrant_providers import Containers, Provider, VirtualMachines, choose
from provision.model.cluster import Ssh
from provision.model.commands import clusterctl
from provision.model.errors import MachinesError
from provision.model.located import Located


class Vagrant:
    """Makes, finds and removes machines with Vagrant."""

    def locate(self, draft: Draft) -> Mapping[str, Located]:
        """Give the machines' addresses; before `create`, their planned addresses."""
        provider = self._provider(draft)
        return self._locate(draft, provider, provider.addresses(draft))

    def vip(self, draft: Draft) -> IPv4Address:
        return self._provider(draft).vip(draft)

    def missing(self, draft: Draft) -> tuple[str, ...]:
        """Give names of machines that do not run, or that have no known SSH settings."""
        provider, ways = self._provider(draft), self._ways(draft)
        known = {name for name in ways if self._host_key(draft, provider, name)}
        found = self.status(draft)
        return tuple(s.name for s in found if s.state != "running" or s.name not in known)

    def status(self, draft: Draft) -> tuple[MachineStatus, ...]:
        command, provider = self._command(draft), self._provider(draft)
        states = command.states() if command.made() else {}
        addresses = provider.addresses(draft)
        specs = self._specs(draft, provider, addresses)
        return tuple(
            MachineStatus(
                name,
                state_of(states.get(name, ABSENT)),
                str(machine.address),
                f"{machine.ssh.user}@{machine.ssh.hostname}:{machine.ssh.port}",
                specs[name],
            )
            for name, machine in self._locate(draft, provider, addresses).items()
        )

    def create(
        self, draft: Draft, progress: Progress, names: Collection[str] | None = None
    ) -> None:
        """Make missing machines, start stopped ones; return when Vagrant can log in to all.

        Raises:
            MachinesError: Vagrant failed; the message has the last lines of its output.
        """
        command, provider = self._command(draft), self._provider(draft)
        made = command.made()
        names = tuple(h.name for h in draft.hosts if names is None or h.name in names)
        if draft.vagrant.provider not in {"auto", provider.name}:
            raise MachinesError(
                f"the machines were made by {provider.name}, "
                f"but the inventory has {draft.vagrant.provider}",
                hint=f"remove them first: {clusterctl('machines', 'down', draft.inventory)}",
            )
        require()
        provider.prepare(draft, names, tuple(made), progress)
        for name in set(names) - made.keys():
            self._pin(draft, name).unlink(missing_ok=True)
        self._record(draft, provider)
        summary = f"make and start machines: vagrant, {provider.name}"
        with progress.phase("machines", summary, names):
            command.up(provider.name, names, progress.update)
            known = split_ssh_config(self._read(self._ssh_config(draft)))
            ways = "\n".join({**known, **command.ssh_config(names)}.values())
            private_file.write(self._ssh_config(draft), ways.encode())
            unknown = [name for name in names if self._host_key(draft, provider, name) is None]
            with ThreadPoolExecutor(max_workers=4) as pool:
                for name, key in zip(unknown, pool.map(command.host_key, unknown), strict=True):
                    private_file.write(self._pin(draft, name), f"{key}\n".encode())
            for name in names:
                progress.done(name)

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> bool:
        """Remove machines with their disks and keys. New machines of these names get new ones."""
        command, provider = self._command(draft), self._provider(draft)
        if made := [name for name in names if name in command.made()]:
            self._record(draft, provider)
            command.destroy(made, progress.update)
        provider.remove(draft, names, progress)
        for name in names:
            self._pin(draft, name).unlink(missing_ok=True)
        return True

    def destroy(self, draft: Draft, progress: Progress) -> None:
        """Remove all machines, also those that the inventory no longer has, and all local files."""
        command, provider = self._command(draft), self._provider(draft)
        if made := tuple(command.made()):
            self._record(draft, provider)
            with progress.phase("machines", f"remove machines: vagrant, {provider.name}", made):
                command.destroy(made, progress.update)
        provider.destroy(draft, progress)
        shutil.rmtree(self._directory(draft), ignore_errors=True)

    def _provider(self, draft: Draft) -> Provider:
        made = self._command(draft).made()
        name = choose(draft.vagrant.provider, made)
        if name == "docker":
            return Containers(Lab(draft.vagrant.network))
        recorded = self._recorded(draft)
        known = {n: IPv4Address(str(recorded[n]["address"])) for n in made if n in recorded}
        return VirtualMachines(name, known)

    def _locate(
        self, draft: Draft, provider: Provider, addresses: Mapping[str, IPv4Address]
    ) -> Mapping[str, Located]:
        ways = self._ways(draft)
        located = {}
        for name, address in addresses.items():
            way = ways.get(name, Ssh(hostname=str(address)))
            pin = {"host_key": self._host_key(draft, provider, name)}
            located[name] = Located(address, way.model_copy(update=pin))
        return located

    def _specs(
        self, draft: Draft, provider: Provider, addresses: Mapping[str, IPv4Address]
    ) -> Mapping[str, Mapping[str, object]]:
        ours = {"provider": provider.name, "dotfile": str(self._command(draft).dotfile)}
        return {name: {**provider.spec(draft, name, addresses[name]), **ours} for name in addresses}

    def _record(self, draft: Draft, provider: Provider) -> None:
        """Write the file that the Vagrantfile reads, also with machines that will be removed."""
        addresses, made = provider.addresses(draft), self._command(draft).made()
        recorded = {name: entry for name, entry in self._recorded(draft).items() if name in made}
        for name, spec in self._specs(draft, provider, addresses).items():
            recorded[name] = {"name": name, "address": str(addresses[name]), "spec": spec}
        private_file.write(
            self._machines(draft), json.dumps([*recorded.values()], indent=1).encode()
        )

    def _recorded(self, draft: Draft) -> Mapping[str, Mapping[str, object]]:
        entries = json.loads(self._read(self._machines(draft)) or "[]")
        return {entry["name"]: entry for entry in entries}

    def _ways(self, draft: Draft) -> Mapping[str, Ssh]:
        return parse_ssh_config(self._read(self._ssh_config(draft)))

    def _host_key(self, draft: Draft, provider: Provider, name: str) -> str | None:
        return provider.host_key(draft, name) or self._read(self._pin(draft, name)).strip() or None

    def _read(self, path: Path) -> str:
        """Read a local file; empty: it does not exist yet."""
        return path.read_text() if path.exists() else ""

    def _command(self, draft: Draft) -> VagrantCommand:
        return VagrantCommand(self._machines(draft), self._directory(draft) / "vagrant")

    def _directory(self, draft: Draft) -> Path:
        return Lab().directory(draft)

    def _machines(self, draft: Draft) -> Path:
        return self._directory(draft) / "machines.json"

    def _ssh_config(self, draft: Draft) -> Path:
        return self._directory(draft) / "ssh_config"

    def _pin(self, draft: Draft, name: str) -> Path:
        return self._directory(draft) / "host_keys" / name


def state_of(word: str) -> str:
    """Translate a provider's word for a machine's state."""
    return {ABSENT: "absent", "running": "running"}.get(word, "stopped")
