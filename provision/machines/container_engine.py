"""Podman or Docker: only this module calls them and handles their differences.

The flags that an engine needs depend on the operator's machine. This module detects them:

- `--systemd=false` for podman on cgroup v1: its systemd mode mounts the cgroup tree a second
  time there, and then runc inside the machine cannot start any container.
- `--runtime runc` for podman on hybrid cgroups: crun refuses them.
- `--ulimit` with the caller's own hard limits, if the caller has no CAP_SYS_RESOURCE: podman's
  defaults may be above these limits, and then no container starts.

Podman must run as root. Docker works for every user who may use its daemon on this machine. In all
other cases (rootless, Docker Desktop, a remote daemon) this computer cannot reach the machines'
network. The tests run podman 4.3. Docker 20.10 was tested by hand: clusters up and down, a stopped
master, images.
"""

from __future__ import annotations

import functools
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any, Literal, TypeVar

from provision.model.commands import shell
from provision.model.errors import MachinesError

T = TypeVar("T")
Name = Literal["podman", "docker"]
ENGINES: tuple[Name, ...] = ("podman", "docker")

CAP_SYS_RESOURCE = 24  # linux/capability.h
# The commands that show whether an engine works, and where. `podman info` would also query the
# package manager.
_ABOUT: Mapping[Name, tuple[str, ...]] = {"podman": ("version",), "docker": ("info",)}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # Docker's classic builder writes it without a terminal too
# An operator who has both engines chooses one with this environment variable.
CHOSEN = "CLUSTERCTL_ENGINE"
INSTALL_HINT = (
    f"install one, and run clusterctl as root: {shell('apt-get', 'install', 'podman', 'runc')}"
)


@dataclass(frozen=True)
class Operator:
    """Properties of the operator's machine and of this process that decide the engine's flags.

    Attributes:
        unified: /sys/fs/cgroup is cgroup v2 alone.
        hybrid: cgroup v1 with a cgroup v2 tree beside it.
        hard_limits: name of the ulimit -> the highest value that podman can set without
            CAP_SYS_RESOURCE; a ulimit without a limit is absent.
    """

    root: bool
    sys_resource: bool
    unified: bool
    hybrid: bool
    has_runc: bool
    hard_limits: Mapping[str, int]


@dataclass(frozen=True)
class Container:
    """One container. `state` in the engine's words: `running`, `paused`, `exited`, `created` ..."""

    name: str
    state: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Network:
    name: str
    subnets: tuple[IPv4Network, ...]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Engine:
    """A working engine.

    Attributes:
        command: the program and its global flags.
        machine_flags: flags for `create` that make a container behave like a machine.
        volume_options: text after a named volume's path, so that the volume is mounted like a disk.
            Podman would mount it nosuid and nodev, and this would also affect all files of pods.
    """

    name: Name
    command: tuple[str, ...]
    machine_flags: tuple[str, ...]
    volume_options: str

    def run(self, *args: str, stdin: bytes = b"", timeout: float = 120) -> str:
        """Run one command of the engine; return its output.

        Raises:
            MachinesError: the command failed, or took more than `timeout` seconds.
        """
        return run((*self.command, *args), stdin=stdin, timeout=timeout)

    def build(self, context: Path, tag: str, base: str, each_line: Callable[[str], None]) -> None:
        """Build `context/Containerfile` on `base`, an image that this computer already has."""
        local = ("--pull=never", "--format=docker") if self.name == "podman" else ()
        file = f"--file={context / 'Containerfile'}"
        argv = (*self.command, "build", *local, "--network=host", f"--build-arg=BASE={base}")
        follow((*argv, f"--tag={tag}", file, str(context)), each_line)

    def has_image(self, tag: str) -> bool:
        return bool(self.run("images", "--quiet", tag).strip())

    def registry_answers(self, image: str, timeout: float = 10) -> bool:
        """Whether the image's registry answers a query for the image within `timeout` seconds."""
        try:
            self.run("manifest", "inspect", image, timeout=timeout)
        except MachinesError:
            return False
        return True

    def containers(self, label: str) -> tuple[Container, ...]:
        """All containers, running or not, with this label (`name`, `name=value`)."""
        # Docker before 23 does not know the word `json`; podman's template has other fields.
        shape = "json" if self.name == "podman" else "{{json .}}"
        listing = ("ps", "--all", f"--filter=label={label}", f"--format={shape}")
        found = parse_containers(_retried(lambda: self.run(*listing)))
        # A container whose removal was interrupted cannot be used, and it blocks its name.
        if half := [container.name for container in found if container.state == "removing"]:
            with suppress(MachinesError):  # another process has finished the removal by now
                self.run("rm", "--force", *half)
        return tuple(container for container in found if container.name not in half)

    def networks(self) -> tuple[Network, ...]:
        def inspected() -> str:
            names = self.run("network", "ls", "--quiet").split()
            return self.run("network", "inspect", *names) if names else "[]"

        return parse_networks(_retried(inspected))

    def volumes(self) -> tuple[str, ...]:
        return _retried(lambda: tuple(self.run("volume", "ls", "--quiet").split()))

    def create_network(self, name: str, subnet: IPv4Network, labels: Mapping[str, str]) -> None:
        # No DNS server of the engine: machines get a resolv.conf that pods can use too.
        dns = ("--disable-dns",) if self.name == "podman" else ()
        flags = (f"--subnet={subnet}", f"--gateway={subnet[1]}")
        labelled = (f"--label={key}={value}" for key, value in labels.items())
        self.run("network", "create", "--driver=bridge", *dns, *flags, *labelled, name)

    def save(self, image: str, archive: Path) -> None:
        """Write an image to a file: podman as an OCI archive, Docker in its own format."""
        oci = ("--format=oci-archive",) if self.name == "podman" else ()
        self.run("save", *oci, f"--output={archive}", image, timeout=600)

    def put(self, container: str, archive: bytes) -> None:
        """Unpack a tar archive over the container's root; the container may run or not."""
        self.run("cp", "-", f"{container}:/", stdin=archive)

    def pause(self, container: str) -> None:
        """Freeze every process of the container."""
        # If many processes start others, cgroup v1 may not freeze all of them at the first try.
        _retried(lambda: self.run("pause", container))

    def remove_containers(self, containers: Sequence[Container]) -> None:
        """Kill and remove the containers immediately."""
        for container in containers:
            if container.state == "paused":  # a frozen process cannot even be killed on cgroup v1
                self.run("unpause", container.name)
        at_once = ("--time=0",) if self.name == "podman" else ()
        if containers:
            self.run("rm", "--force", *at_once, *(c.name for c in containers))


def _retried(call: Callable[[], T]) -> T:
    """Repeat a call that failed: other processes may remove listed things at the same moment."""
    for _ in range(4):
        with suppress(MachinesError):
            return call()
    return call()


@functools.cache
def working() -> Engine:
    """Find the engine to use: the chosen one, else podman if it works, else Docker if it works.

    Raises:
        MachinesError: no engine works; the message has the reason for each.
    """
    operator = this_operator()
    reasons = []
    chosen = os.environ.get(CHOSEN)
    if chosen and chosen not in ENGINES:
        raise MachinesError(
            f"{CHOSEN} is {chosen!r}", hint=f"set it to one of {', '.join(ENGINES)}, or unset it"
        )
    for name in ENGINES:
        if chosen not in (None, "", name):
            continue
        if shutil.which(name) is None:
            reasons.append(f"{name}: not installed")
            continue
        try:
            info = json.loads(run((name, *_ABOUT[name], "--format", "{{json .}}"), timeout=30))
        except MachinesError as error:
            reasons.append(f"{name}: {error.message}")
            continue
        if refusal := refusal_of(name, info, operator):
            reasons.append(f"{name}: {refusal}")
            continue
        return engine_for(name, operator)
    raise MachinesError(
        "the lab needs a container engine, but none works: " + "; ".join(reasons),
        hint=INSTALL_HINT,
    )


def refusal_of(name: Name, info: Mapping[str, Any], operator: Operator) -> str:
    """Give the reason why an engine that answers cannot be used; empty if it can be used."""
    return _podman_refusal(info, operator) if name == "podman" else _docker_refusal(info)


def _podman_refusal(info: Mapping[str, Any], operator: Operator) -> str:
    if not operator.root:
        return "rootless: its networks cannot be reached from here; run clusterctl as root"
    if info.get("Server"):
        return "it runs on another machine"
    if operator.hybrid and not operator.has_runc:
        return "crun refuses hybrid cgroups, and runc is not installed"
    return ""


def _docker_refusal(info: Mapping[str, Any]) -> str:
    if not info.get("ServerVersion"):
        return "; ".join(info.get("ServerErrors") or ("no daemon answers",))
    if info.get("OperatingSystem") == "Docker Desktop":
        return "Docker Desktop: its networks cannot be reached from here"
    if any("rootless" in option for option in info.get("SecurityOptions") or ()):
        return "rootless: its networks cannot be reached from here"
    return ""


def engine_for(name: Name, operator: Operator) -> Engine:
    """Give the engine the flags that this operator's machine needs."""
    runtime = ("--runtime=runc",) if name == "podman" and operator.hybrid else ()
    flags = [
        "--privileged",
        "--cgroupns=private",
        "--pids-limit=-1",  # podman's 2048 is less than one node's pods may need
        "--stop-signal=SIGRTMIN+3",  # systemd powers off on this signal
        f"--env=container={name}",
        "--tmpfs=/run:rw,nosuid,nodev,mode=755",
        "--tmpfs=/run/lock:rw,nosuid,nodev,noexec,mode=1777",
        "--tmpfs=/tmp:rw,nosuid,nodev,exec,mode=1777",
    ]
    if name == "podman" and not operator.unified:
        flags.append("--systemd=false")
    # Docker's daemon makes the containers, with the daemon's own limits.
    if name == "podman" and not operator.sys_resource:
        flags += [f"--ulimit={k}={v}:{v}" for k, v in operator.hard_limits.items()]
    options = ":suid,dev,exec" if name == "podman" else ""
    return Engine(name, (name, *runtime), tuple(flags), options)


def this_operator() -> Operator:
    mounts = _read("/proc/self/mounts")
    nproc = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    pid_max = int(_read("/proc/sys/kernel/pid_max") or nproc)
    limits = {
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        # Podman lowers its own limit to pid_max when it starts, and cannot raise it again.
        "nproc": pid_max if nproc == resource.RLIM_INFINITY else min(nproc, pid_max),
    }
    return Operator(
        root=os.geteuid() == 0,
        sys_resource=has_capability(_read("/proc/self/status"), CAP_SYS_RESOURCE),
        unified=is_unified(mounts),
        hybrid=is_hybrid(mounts),
        has_runc=shutil.which("runc") is not None,
        hard_limits={k: v for k, v in limits.items() if v != resource.RLIM_INFINITY},
    )


def has_capability(status: str, number: int) -> bool:
    """Whether /proc/PID/status has the capability in its effective set."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def is_unified(mounts: str) -> bool:
    """Whether /proc/PID/mounts shows version 2 of cgroups in their usual place."""
    return any(line.split()[1:3] == ["/sys/fs/cgroup", "cgroup2"] for line in mounts.splitlines())


def is_hybrid(mounts: str) -> bool:
    """Whether /proc/PID/mounts shows both versions of cgroups."""
    kinds = {line.split()[2] for line in mounts.splitlines() if line}
    return {"cgroup", "cgroup2"} <= kinds


def parse_containers(listed: str) -> tuple[Container, ...]:
    """Parse the JSON of `ps`: podman prints one list, Docker one line for each container.

    Docker writes labels as `k=v,k=v`.
    """
    if listed.lstrip().startswith("["):
        return tuple(
            Container(item["Names"][0], item["State"], item["Labels"] or {})
            for item in json.loads(listed)
        )
    return tuple(
        Container(
            item["Names"],
            item["State"],
            dict(label.split("=", 1) for label in item["Labels"].split(",") if "=" in label),
        )
        for item in map(json.loads, listed.splitlines())
    )


def parse_networks(inspected: str) -> tuple[Network, ...]:
    """Parse the JSON of `network inspect`: podman's `subnets`, Docker's `IPAM`."""
    networks = []
    for item in json.loads(inspected):
        if "IPAM" in item:
            name, labels = item["Name"], item.get("Labels")
            subnets = [config["Subnet"] for config in item["IPAM"]["Config"] or ()]
        else:
            name, labels = item["name"], item.get("labels")
            subnets = [entry["subnet"] for entry in item.get("subnets") or ()]
        parsed = (ip_network(subnet) for subnet in subnets)
        ours = tuple(network for network in parsed if isinstance(network, IPv4Network))
        networks.append(Network(name, ours, labels or {}))
    return tuple(networks)


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program; return its standard output.

    Args:
        env: the program's environment; None: the environment of this process.

    Raises:
        MachinesError: the program failed, or took more than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, timeout=timeout, env=env, check=False
        )
    except subprocess.TimeoutExpired:
        message = f"{_called(argv)} did not end within {timeout:.0f} s"
        raise MachinesError(message, hint=f"check that {argv[0]} works") from None
    if done.returncode:
        raise MachinesError(f"{_called(argv)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def follow(
    argv: Sequence[str], each_line: Callable[[str], None], env: Mapping[str, str] | None = None
) -> None:
    """Run a long program, and pass every line of its output to `each_line` immediately.

    Raises:
        MachinesError: the program failed; the message has its last lines.
    """
    lines: list[str] = []
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
    ) as process:
        try:
            for raw in process.stdout or ():
                if line := _COLOUR.sub("", raw.decode(errors="replace")).strip():
                    lines.append(line)
                    each_line(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise MachinesError(f"{_called(argv)}:\n" + "\n".join(lines[-15:]))


def _called(argv: Sequence[str]) -> str:
    """Shorten a command for an error message, `podman create`."""
    return " ".join([argv[0], *(arg for arg in argv[1:] if not arg.startswith("-"))][:2])


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
