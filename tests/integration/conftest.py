"""Real SSH servers on the loopback. Each stands in for a machine."""

from __future__ import annotations

from tests import patched  # noqa: F401, I001  isort: skip

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from provision.model.cluster import Cluster, Machine, Role, Ssh
from tests.integration import labs

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        labs.note(session.config)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """After Ctrl-C, the processes of pytest-xdist do not end their fixtures."""
    if not hasattr(config, "workerinput"):
        labs.remove(config._tmp_path_factory.getbasetemp().name)


@dataclass
class Server:
    """An sshd that the tests start. `log`: its log at level DEBUG1."""

    port: int
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def host_key(self) -> str:
        return (self.directory / "host.pub").read_text().rsplit(" ", 1)[0]

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [SSHD, "-D", "-f", self.directory / "sshd_config", "-E", self.directory / "log"]
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail(f"sshd does not listen: {self.log}")

    def stop(self) -> None:
        """Stop the server and all its sessions."""
        if self.process is not None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            pids = [int(pid) for pid in children.read_text().split()]
            self.process.terminate()
            self.process.wait()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, 15)
            self.process = None


@dataclass
class Ground:
    """Servers, the private key that they all accept, and the file with their host keys."""

    servers: list[Server]
    key: Path
    known_hosts: Path

    @staticmethod
    def keygen(path: Path, password: str = "") -> Path:
        return keygen(path, password)

    def machine(self, index: int, **ssh: object) -> Machine:
        values = {
            "hostname": "127.0.0.1",
            "port": self.servers[index].port,
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "key": self.key,
        }
        return Machine(
            name=f"m{index + 1}",
            address=IPv4Address(f"10.0.0.{index + 1}"),
            roles=frozenset({Role.MASTER, Role.ETCD}),
            ssh=Ssh.model_validate(values | ssh),
        )

    def cluster(self, *machines: Machine) -> Cluster:
        return Cluster(
            name="test",
            machines=machines or tuple(self.machine(i) for i in range(len(self.servers))),
            inventory=Path("/dev/null"),
        )


def keygen(path: Path, password: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", password, "-f", path], check=True)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Server]]:
    """Gives a function that starts an sshd. The server accepts one public key."""
    if not Path(SSHD).exists():
        pytest.fail("no sshd: apt-get install openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    servers: list[Server] = []

    def make(public_key: Path) -> Server:
        directory = tmp_path_factory.mktemp("sshd")
        server = Server(_free_port(), directory)
        keygen(directory / "host")
        shutil.copy(public_key, directory / "authorized_keys")
        (directory / "sshd_config").write_text(
            f"""\
ListenAddress 127.0.0.1:{server.port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/authorized_keys
PidFile {directory}/pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
LogLevel DEBUG1
MaxStartups 100
Subsystem sftp internal-sftp
"""
        )
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def ground(
    make_server: Callable[[Path], Server], tmp_path_factory: pytest.TempPathFactory
) -> Ground:
    """Three servers with known host keys. They accept the tests' key."""
    directory = tmp_path_factory.mktemp("ssh")
    keygen(directory / "id")
    servers = [make_server(directory / "id.pub") for _ in range(3)]
    known_hosts = directory / "known_hosts"
    known_hosts.write_text("".join(f"[127.0.0.1]:{s.port} {s.host_key}\n" for s in servers))
    return Ground(servers, directory / "id", known_hosts)
