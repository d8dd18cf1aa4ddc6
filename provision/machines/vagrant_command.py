"""The program `vagrant`. Only this module calls it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from provision.machines.container_engine import follow, run
from provision.model.cluster import Ssh
from provision.model.commands import shell
from provision.model.errors import MachinesError

HERE = Path(__file__).parents[1]
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
TIMEOUT = 120.0  # seconds, for queries; Vagrant answers within 1 second on an idle computer
ABSENT = "not_created"  # Vagrant's word for all providers
INSTALL_HINT = f'install it ({shell("apt-get", "install", "vagrant")}), or use "machines": "lab"'

_SPEAKER = re.compile(r"\s*(?:==>)?\s*(\S+): (.*)")


@dataclass(frozen=True)
class VagrantCommand:
    """Vagrant, for the machines of one inventory.

    Attributes:
        machines: file with the data of each machine, for the Vagrantfile.
        dotfile: directory in which Vagrant keeps its own data of the machines.
    """

    machines: Path
    dotfile: Path

    def made(self) -> Mapping[str, str]:
        """Give machine -> provider of all existing machines, from Vagrant's files."""
        found = self.dotfile.glob("machines/*/*/id")
        return {path.parents[1].name: path.parent.name for path in found}

    def states(self) -> Mapping[str, str]:
        """Give machine -> state, in the provider's words: `running`, `poweroff`, `not_created`."""
        return parse_states(self._run("status", "--machine-readable"))

    def up(self, provider: str, names: Sequence[str], report: Callable[[str, str], None]) -> None:
        """Make or start machines; return when Vagrant can log in to them.

        Args:
            report: called with (machine, line) for each line of Vagrant's output.
        """
        options = ("--no-color", f"--provider={provider}", "--no-destroy-on-error")
        self._follow(("up", *options, *names), names, report)

    def destroy(self, names: Sequence[str], report: Callable[[str, str], None]) -> None:
        self._follow(("destroy", "--no-color", "--force", *names), names, report)

    def ssh_config(self, names: Sequence[str]) -> Mapping[str, str]:
        """Give machine -> its part of OpenSSH's configuration, for machines that run."""
        return split_ssh_config(self._run("ssh-config", *names))

    def host_key(self, name: str) -> str:
        """Read a machine's public host key over Vagrant's own connection to it."""
        said = self._run("ssh", name, "--no-tty", "--command", f"cat {HOST_KEY}")
        return " ".join(said.split()[:2])

    def _run(self, *arguments: str) -> str:
        return run(_called(arguments), timeout=TIMEOUT, env=self._environment())

    def _follow(
        self,
        arguments: Sequence[str],
        names: Iterable[str],
        report: Callable[[str, str], None],
    ) -> None:
        def each_line(line: str) -> None:
            spoken = _SPEAKER.fullmatch(line)
            if spoken and spoken[1] in names:
                report(spoken[1], spoken[2])

        follow(_called(arguments), each_line, env=self._environment())

    def _environment(self) -> Mapping[str, str]:
        """Give this process's environment for clusterctl's Vagrantfile; see vagrant/Vagrantfile.

        Variables that the operator set for another Vagrantfile are removed.
        """
        others = {"VAGRANT_VAGRANTFILE", "VAGRANT_DEFAULT_PROVIDER", "VAGRANT_NO_PARALLEL"}
        return {
            **{key: value for key, value in os.environ.items() if key not in others},
            "VAGRANT_CWD": str(vagrantfile().parent),
            "VAGRANT_DOTFILE_PATH": str(self.dotfile),
            "VAGRANT_CHECKPOINT_DISABLE": "1",  # else Vagrant asks the internet for a new version
            "CLUSTERCTL_MACHINES": str(self.machines),
        }


def vagrantfile() -> Path:
    """Find clusterctl's Vagrantfile: in a wheel it is in the package, in a checkout beside it."""
    places = (HERE / "vagrant" / "Vagrantfile", HERE.parent / "vagrant" / "Vagrantfile")
    return next(place for place in places if place.is_file())


def parse_states(machine_readable: str) -> Mapping[str, str]:
    """Parse lines `time,machine,type,data...`: machine -> state. Vagrant escapes commas in data."""
    lines = (line.split(",") for line in machine_readable.splitlines())
    return {fields[1]: fields[3] for fields in lines if fields[2:3] == ["state"]}


def split_ssh_config(text: str) -> Mapping[str, str]:
    """Split the output of `vagrant ssh-config`: machine -> its part."""
    parts = re.split(r"^(?=Host )", text, flags=re.MULTILINE)[1:]
    return {part.split()[1]: f"{part.strip()}\n" for part in parts}


def parse_ssh_config(text: str) -> Mapping[str, Ssh]:
    """Parse the output of `vagrant ssh-config`: machine -> its SSH settings."""
    config = paramiko.SSHConfig.from_text(text)
    ways = {}
    for name in config.get_hostnames() - {"*"}:
        way = config.lookup(name)
        ways[name] = Ssh(
            hostname=way["hostname"],
            port=int(way["port"]),
            user=way["user"],
            sudo=way["user"] != "root",
            key=Path(way["identityfile"][0].strip('"')),
        )
    return ways


def require() -> None:
    """Check that the program is installed.

    Raises:
        MachinesError: it is not installed.
    """
    if shutil.which("vagrant") is None:
        raise MachinesError("vagrant is not installed", hint=INSTALL_HINT)


def _called(arguments: Sequence[str]) -> tuple[str, ...]:
    require()
    return ("vagrant", *arguments)
