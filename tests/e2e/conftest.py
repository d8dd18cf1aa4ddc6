"""Clusters in the lab. The tests use the command line, as a user does.

Assertions use tools from outside: kubectl, etcdctl, openssl, curl, the container engine.
CLUSTERCTL_LAB=required turns a missing container engine into a failure; CLUSTERCTL_KEEP=1 keeps the
machines for inspection; CLUSTERCTL_ENGINE=docker runs them with Docker. `lanes.py` decides which
tests run at the same time, `sample.py` which tests a run leaves out.
"""

from __future__ import annotations

from tests import patched  # noqa: F401, I001  isort: skip

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer

from provision.inventory import read
from provision.machines import container_engine
from provision.machines.lab_names import lab_id
from provision.model.errors import MachinesError
from tests.e2e import lanes, sample

HERE = Path(__file__).parent
# The container engine of the lab's machines. Both engines accept the commands that the tests use.
ENGINE = os.environ.get(container_engine.CHOSEN) or (
    "podman" if shutil.which("podman") else "docker"
)
CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
# Run on a member's machine: etcdctl asks this member.
ETCDCTL = (
    "etcdctl --endpoints https://127.0.0.1:2379 --cacert /etc/etcd/pki/ca.crt "
    "--cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key"
)


def run(
    *argv: str | Path,
    check: bool = True,
    timeout: float = 900,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command. Print the command, and return its output."""
    words = [str(word) for word in argv]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=timeout,
        input=stdin,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    if check and done.returncode != 0:
        pytest.fail(
            f"{shlex.join(words)}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
        )
    return done


def ready(nodes: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Node -> the status of its condition Ready. `nodes`: Nodes in kubectl's JSON."""
    return {
        node["metadata"]["name"]: condition["status"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    }


def containers(*, running: bool = False) -> list[str]:
    """Names of all containers. podman fails if another lane removes a container meanwhile."""
    which = () if running else ("--all",)
    for _ in range(3):
        done = run(ENGINE, "ps", *which, "--format", "{{.Names}}", check=False)
        if done.returncode == 0:
            return done.stdout.split()
        time.sleep(0.5)
    pytest.fail(f"{ENGINE} ps: {done.stderr}")


def until(what: str, condition: Callable[[], object], timeout: float = 120) -> object:
    """Wait until a condition holds, and return its value. The failure names the condition.

    A condition must be cheap: use kubectl, etcdctl or openssl, not a whole `clusterctl`.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.25)


@dataclass
class Lab:
    """A cluster of an inventory of tests/e2e/inventories.

    Attributes:
        state: the operator's state directory; None: that of the user who runs the tests.
    """

    inventory: Path
    kubectl_binary: Path | None = None
    kubeconfig: Path | None = None
    state: Path | None = None

    def clusterctl(
        self, command: str, *arguments: str | Path, check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        return run(
            CLUSTERCTL,
            *command.split(),
            self.inventory,
            *arguments,
            check=check,
            timeout=timeout,
            env={"XDG_STATE_HOME": str(self.state)} if self.state else None,
        )

    def up(self) -> None:
        self.clusterctl("up", "--yes", timeout=1800)

    def machines(self) -> dict[str, dict[str, str]]:
        listed = json.loads(self.clusterctl("machines list", "-o", "json").stdout)
        return {machine["name"]: machine for machine in listed}

    def on(self, machine: str, command: str, *, check: bool = True, stdin: str = "") -> str:
        """The output of a command on a machine, as root, run through the container engine."""
        words = (ENGINE, "exec", "-i", self.container(machine), "sh", "-c", command)
        return run(*words, check=check, stdin=stdin).stdout

    def addresses(self) -> dict[str, str]:
        """Machine -> its address, from the container engine; only machines that run."""
        shown = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        ours = [name for name in containers(running=True) if name.startswith(self.prefix)]
        lines = run(ENGINE, "inspect", "--format", shown, *ours).stdout.splitlines()
        return {
            name.removeprefix("/").removeprefix(self.prefix): address
            for name, address in sorted(line.split() for line in lines)
        }

    def ssh(self, machine: str, command: str, *, check: bool = True) -> str:
        """The output of a command on a machine, over SSH. It works for all kinds of machines."""
        return self.clusterctl("ssh", machine, "--", "sh", "-c", command, check=check).stdout

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run the real kubectl on this computer, through the API's address."""
        assert self.kubectl_binary is not None
        return run(
            self.kubectl_binary,
            f"--kubeconfig={self.kubeconfig}",
            "--request-timeout=10s"
            if "wait" not in arguments and "rollout" not in arguments
            else "-v=0",
            *arguments,
            check=check,
            stdin=stdin,
            timeout=timeout,
        )

    def container(self, machine: str) -> str:
        return f"{self.prefix}{machine}"

    def destroy(self, machine: str) -> None:
        """Destroy the machine and its data. It does not answer any more."""
        container = self.container(machine)
        run(ENGINE, "kill", container)
        run(ENGINE, "rm", "-f", container)
        listed = run(ENGINE, "volume", "ls", "-q").stdout.split()
        run(ENGINE, "volume", "rm", *(v for v in listed if v.startswith(f"{container}-")))

    @cached_property
    def prefix(self) -> str:
        # Another checkout may have a lab of the same name.
        return f"{lab_id(read(self.inventory))}-"


def pytest_configure(config: pytest.Config) -> None:
    """In the process that starts the lanes: print progress; remove clusters of earlier runs."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    plugins = config.pluginmanager
    plugins.register(lanes.Progress(plugins), "clusterctl-progress")
    from tests.e2e import leftovers

    leftovers.remove()


def pytest_report_header() -> str:
    return f"long tests chosen by {sample.seed()[:12]} (CLUSTERCTL_SAMPLE=all executes all)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = sample.leave_out(config, items)
    lanes.arrange(items)
    if hasattr(config, "workeroutput"):
        config.workeroutput[lanes.SAMPLE] = chosen


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> lanes.Lanes:
    return lanes.Lanes(config, log)


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Skip the tests if no container engine works. With CLUSTERCTL_LAB=required: fail."""
    try:
        container_engine.working()
    except MachinesError as error:
        if os.environ.get("CLUSTERCTL_LAB") == "required":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def artifacts() -> dict[str, Path]:
    """`component/file` -> its path on this computer, for this computer's architecture."""
    inventory = HERE / "inventories" / "ha.py"
    lines = run(CLUSTERCTL, "artifacts", "fetch", inventory, timeout=3600).stdout.splitlines()
    rows = [line.split() for line in lines]
    return {row[0]: Path(row[-1]) for row in rows if "/" in row[0]}


@pytest.fixture(scope="session")
def kubectl_binary(artifacts: dict[str, Path]) -> Path:
    return artifacts["kubernetes/kubectl"]


def cluster(name: str) -> Iterator[Lab]:
    """A lab of an inventory. Its machines are removed in the background while other tests run."""
    lab = Lab(HERE / "inventories" / f"{name}.py")
    try:
        yield lab
    finally:
        if not os.environ.get("CLUSTERCTL_KEEP"):
            down = [CLUSTERCTL, "down", lab.inventory, "--yes"]
            _REMOVALS.append(
                subprocess.Popen(down, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            )


@pytest.fixture(scope="session", autouse=True)
def removals() -> Iterator[None]:
    """Check at the end that every removal in the background succeeded."""
    yield
    for removal in _REMOVALS:
        _, said = removal.communicate(timeout=300)
        assert removal.returncode == 0, said


_REMOVALS: list[subprocess.Popen[str]] = []
