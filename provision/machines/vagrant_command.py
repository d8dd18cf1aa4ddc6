"""The program `vagrant`: the one place that calls it."""

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
from provision.model.errors import MachinesError

HERE = Path(__file__).parents[1]
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
TIMEOUT = 120.0  # seconds, for questions; an idle machine answers in 1
ABSENT = "not_created"  # Vagrant's word, whatever the provider
INSTALL_HINT = 'install it (apt-get install vagrant), or use "machines": "lab"'

_SPEAKER = re.compile(r"\s*(?:==>)?\s*(\S+): (.*)")


@dataclass(frozen=True)
class VagrantCommand:
    """Vagrant, on the machines of one inventory.

    Attributes:
        machines: file with what the Vagrantfile is to know of each.
        dotfile: folder where Vagrant keeps what it knows of them.
    """

    machines: Path
    dotfile: Path

    def made(self) -> Mapping[str, str]:
        """Machine -> provider, of all that Vagrant has made and not removed; without asking it."""
        found = self.dotfile.glob("machines/*/*/id")
        return {path.parents[1].name: path.parent.name for path in found}

    def states(self) -> Mapping[str, str]:
        """Machine -> state in the provider's words: `running`, `poweroff`, `not_created` ..."""
        return parse_states(self._run("status", "--machine-readable"))

    def up(self, provider: str, names: Sequence[str], report: Callable[[str, str], None]) -> None:
        """Make or start machines; return when Vagrant can log in to them.

        Args:
            report: is told machine and line, of what Vagrant says meanwhile.
        """
        options = ("--no-color", f"--provider={provider}", "--no-destroy-on-error")
        self._follow(("up", *options, *names), names, report)

    def destroy(self, names: Sequence[str], report: Callable[[str, str], None]) -> None:
        self._follow(("destroy", "--no-color", "--force", *names), names, report)

    def ssh_config(self, names: Sequence[str]) -> Mapping[str, str]:
        """Machine -> how OpenSSH reaches it; of machines that run."""
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
        """Our own, without what the operator set for another Vagrantfile; see vagrant/Vagrantfile."""
        others = {"VAGRANT_VAGRANTFILE", "VAGRANT_DEFAULT_PROVIDER", "VAGRANT_NO_PARALLEL"}
        return {
            **{key: value for key, value in os.environ.items() if key not in others},
            "VAGRANT_CWD": str(vagrantfile().parent),
            "VAGRANT_DOTFILE_PATH": str(self.dotfile),
            "VAGRANT_CHECKPOINT_DISABLE": "1",  # it would ask the internet for its next version
            "CLUSTERCTL_MACHINES": str(self.machines),
        }


def vagrantfile() -> Path:
    """Find our Vagrantfile: installed from a wheel it lies in the package, else beside it."""
    places = (HERE / "vagrant" / "Vagrantfile", HERE.parent / "vagrant" / "Vagrantfile")
    return next(place for place in places if place.is_file())


def parse_states(machine_readable: str) -> Mapping[str, str]:
    """From lines `time,machine,type,data...`; in data, commas are written otherwise."""
    lines = (line.split(",") for line in machine_readable.splitlines())
    return {fields[1]: fields[3] for fields in lines if fields[2:3] == ["state"]}


def split_ssh_config(text: str) -> Mapping[str, str]:
    """Machine -> its part of what `vagrant ssh-config` prints."""
    parts = re.split(r"^(?=Host )", text, flags=re.MULTILINE)[1:]
    return {part.split()[1]: f"{part.strip()}\n" for part in parts}


def parse_ssh_config(text: str) -> Mapping[str, Ssh]:
    """Machine -> how it is reached, from what `vagrant ssh-config` prints."""
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
    """Refuse to go on without the program.

    Raises:
        MachinesError: it is not there.
    """
    if shutil.which("vagrant") is None:
        raise MachinesError("vagrant is not installed", hint=INSTALL_HINT)


def _called(arguments: Sequence[str]) -> tuple[str, ...]:
    require()
    return ("vagrant", *arguments)
