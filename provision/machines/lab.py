"""The lab: machines that are containers, with systemd and sshd, on their own network.

A lab belongs to one inventory file of one checkout. Its id is made from the cluster's name and the
file's absolute path. The id is in the name of everything that the lab makes:

    container  ID-MACHINE, labelled with lab, machine, address and kind of image
    volume     ID-MACHINE-{containerd,kubelet,etcd}: overlayfs does not work on overlayfs, and
               etcd needs a disk
    network    ID, a /24 of 10.77.0.0/16; .1 is the operator's machine, .11 and up are the
               machines, .100 is the virtual address
    directory  $XDG_STATE_HOME/clusterctl/labs/ID, 0700: the client's key, the machines' host keys

The engine's data on networks and labels is authoritative. The directory may be lost: `create` then
makes new keys and copies them to the machines.
"""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import paramiko
import platformdirs

from provision.inventory import Draft
from provision.local import private_file
from provision.local.progress import Progress, Silent
from provision.machines import (
    MachineStatus,
    container_engine,
    image,
    inotify,
    lab_network,
    ssh_keys,
)
from provision.machines.archive import archive
from provision.machines.container_engine import Container, Engine
from provision.machines.lab_names import (
    ADDRESS_LABEL,
    IMAGE_LABEL,
    INOTIFY_LABEL,
    LAB_LABEL,
    MACHINE_LABEL,
    RESERVED,
    VOLUMES,
    lab_id,
    volumes_of,
)
from provision.machines.lab_network import VIP_HOST, assign, mac, read_resolvers, resolv_conf
from provision.machines.parallel import on_all
from provision.model.cluster import Ssh
from provision.model.commands import clusterctl, shell
from provision.model.errors import MachinesError
from provision.model.located import Located

USERS: Mapping[image.Kind, str] = {"full": "root", "bare": image.ADMIN}
COMMAND = ("/sbin/init",)
SSH_TIMEOUT = 60.0  # seconds; with 2 idle cores, five machines answer within 3 seconds


class Lab:
    """Makes, finds and removes the machines of a lab."""

    def __init__(self, network: IPv4Network | None = None) -> None:
        """`network`: for the machines; None: each lab chooses a free one."""
        self._labs = platformdirs.user_state_path("clusterctl") / "labs"
        self._network = network

    @property
    def _engine(self) -> Engine:
        return container_engine.working()

    def locate(self, draft: Draft) -> Mapping[str, Located]:
        """Give the machines' addresses; before `create`, their planned addresses.

        The plan may change until the lab's network exists, and keys exist only from then on.
        So call this again after `create`.
        """
        user = USERS[draft.lab.image]
        return {
            name: Located(
                address,
                Ssh(
                    hostname=str(address),
                    user=user,
                    sudo=user != "root",
                    key=self.client_key(draft),
                    host_key=ssh_keys.public(self.host_key(draft, name)),
                ),
            )
            for name, address in self.addresses(draft).items()
        }

    def vip(self, draft: Draft) -> IPv4Address:
        return self._subnet(draft)[VIP_HOST]

    def container(self, draft: Draft, name: str) -> str:
        """Give the name of a machine's container."""
        return f"{lab_id(draft)}-{name}"

    def missing(self, draft: Draft) -> tuple[str, ...]:
        return tuple(s.name for s in self.status(draft) if s.state != "running")

    def status(self, draft: Draft) -> tuple[MachineStatus, ...]:
        found = self._containers(draft)
        user = USERS[draft.lab.image]
        return tuple(
            MachineStatus(name, _state(found.get(name)), str(address), f"{user}@{address}")
            for name, address in self.addresses(draft, found).items()
        )

    def create(
        self, draft: Draft, progress: Progress, names: Collection[str] | None = None
    ) -> None:
        """Make missing machines, start stopped ones; return when SSH answers on all.

        Raises:
            MachinesError: names all machines that failed, each with its cause.
        """
        names = tuple(h.name for h in draft.hosts if names is None or h.name in names)
        new = self.prepare(draft, names, progress)
        found = self._containers(draft)
        addresses = self.addresses(draft, found)

        def bring_up(name: str, cancelled: threading.Event) -> None:
            container = found.get(name)
            new_keys = new & {self.client_key(draft), self.host_key(draft, name)}
            if container is None:
                progress.update(name, "create")
                flags = self.create_flags(draft, name, addresses[name])
                self._engine.run("create", *flags, image.tag(draft.lab.image), *COMMAND)
            if container is None or container.state not in {"running", "paused"}:
                progress.update(name, "start")
                self._put_keys(draft, name)
                self.start(draft, name)
            elif container.state == "paused":
                self.thaw(draft, name)
            elif new_keys:
                self._put_keys(draft, name)
                reload = ("systemctl", "reload", "ssh.service")
                self._engine.run("exec", self.container(draft, name), *reload)
            progress.update(name, "wait for SSH")
            try:
                self._await_login(draft, name, addresses[name], cancelled)
            except MachinesError as error:
                state = self._containers(draft)[name].state
                message = f"{error.message}; its container is {state}"
                raise MachinesError(message, hint=error.hint) from None

        with progress.phase("machines", "make and start the lab's machines", names):
            on_all(names, bring_up, progress)

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> bool:
        """Remove machines, their volumes and keys. New machines of these names get new keys."""
        with self._alone(progress):
            found = self._containers(draft)
            self._engine.remove_containers([found[name] for name in names if name in found])
            ours = {
                f"{self.container(draft, name)}-{volume}" for name in names for volume in VOLUMES
            }
            if volumes := ours & set(self._engine.volumes()):
                self._engine.run("volume", "rm", *sorted(volumes))
            for name in names:
                shutil.rmtree(self.host_key(draft, name).parent, ignore_errors=True)
        return True

    def prepare(self, draft: Draft, names: Collection[str], progress: Progress) -> set[Path]:
        """Make image, network and files. Machines need these before they are made or started.

        Args:
            names: the machines that should run.

        Returns:
            the paths of new keys.

        Raises:
            MachinesError: the image, the network or a file cannot be made.
        """
        found = self._containers(draft)
        self._refuse_other_image(draft, found)
        with self._alone(progress):
            if any(name not in found for name in names):
                image.ensure(self._engine, draft.lab.image, progress)
            lab_network.ensure(self._engine, lab_id(draft), self._network)
            others = {c.name for c in self._engine.containers(LAB_LABEL)}
            ours = {self.container(draft, name) for name in names}
            inotify.make_room(len(others | ours), progress)
        self.directory(draft).mkdir(mode=0o700, exist_ok=True)
        self._write_resolv_conf(draft)
        return self._ensure_keys(draft)

    def create_flags(self, draft: Draft, name: str, address: IPv4Address) -> tuple[str, ...]:
        """Give the engine's flags that make a container the machine of that name."""
        identity, container = lab_id(draft), self.container(draft, name)
        labels = {
            LAB_LABEL: identity,
            MACHINE_LABEL: name,
            ADDRESS_LABEL: str(address),
            IMAGE_LABEL: draft.lab.image,
        }
        options = self._engine.volume_options
        mounts = {f"{container}-{volume}": f"{path}{options}" for volume, path in VOLUMES.items()}
        mounts[str(self.directory(draft) / "resolv.conf")] = "/etc/resolv.conf"
        modules = Path("/lib/modules")
        if modules.is_dir():  # machines use the kernel of the operator's machine and its modules
            mounts[str(modules)] = "/lib/modules:ro"
        return (
            *self._engine.machine_flags,
            f"--name={container}",
            f"--hostname={name}",
            f"--network={identity}",
            f"--ip={address}",
            f"--mac-address={mac(address)}",
            *(f"--label={key}={value}" for key, value in labels.items()),
            *(f"--volume={source}:{target}" for source, target in mounts.items()),
        )

    def destroy(self, draft: Draft, progress: Progress) -> None:
        """Remove this lab's containers, volumes, network and files. Other labs stay."""
        with self._alone(progress):
            self._destroy(draft, progress)

    def freeze(self, draft: Draft, name: str) -> None:
        """Freeze all processes of a machine; its connections stay open."""
        self._engine.pause(self.container(draft, name))

    def thaw(self, draft: Draft, name: str) -> None:
        self._engine.run("unpause", self.container(draft, name))

    def stop(self, draft: Draft, name: str) -> None:
        """Shut the machine down by systemd; kill it after 30 s."""
        self._engine.run("stop", "--time=30", self.container(draft, name))

    def start(self, draft: Draft, name: str) -> None:
        self._engine.run("start", self.container(draft, name))

    def kill(self, draft: Draft, name: str) -> None:
        """Power the machine off immediately, without a shutdown; return when it is off."""
        container = self.container(draft, name)
        self._engine.run("kill", container)
        self._engine.run("wait", container)

    def run(self, draft: Draft, name: str, script: str, *, stdin: bytes = b"") -> str:
        """Run a shell script in a machine as root, through the engine: it needs no network.

        Raises:
            MachinesError: the script's exit status is not 0.
        """
        interactive = ("--interactive",) if stdin else ()
        container = self.container(draft, name)
        return self._engine.run("exec", *interactive, container, "sh", "-c", script, stdin=stdin)

    def reserve(self, draft: Draft, address: IPv4Address) -> None:
        """Reserve an address until `release` or `destroy`: no machine gets it."""
        labels = {
            LAB_LABEL: lab_id(draft),
            MACHINE_LABEL: RESERVED,
            ADDRESS_LABEL: str(address),
            IMAGE_LABEL: draft.lab.image,
        }
        tag = image.ensure(self._engine, draft.lab.image, Silent())
        self._engine.run(
            "create",
            f"--name={self.container(draft, RESERVED)}",
            *(f"--label={key}={value}" for key, value in labels.items()),
            tag,
        )

    def release(self, draft: Draft) -> None:
        self._engine.run("rm", self.container(draft, RESERVED))

    def directory(self, draft: Draft) -> Path:
        """Give the path of a lab's directory on this computer."""
        return self._labs / lab_id(draft)

    def client_key(self, draft: Draft) -> Path:
        """Give the path of the private key that logs in to every machine of a lab."""
        return self.directory(draft) / "id_ed25519"

    def host_key(self, draft: Draft, name: str) -> Path:
        """Give the path of a machine's private host key; the public one is beside it."""
        return self.directory(draft) / "machines" / name / "ssh_host_ed25519_key"

    def _containers(self, draft: Draft) -> Mapping[str, Container]:
        found = self._engine.containers(f"{LAB_LABEL}={lab_id(draft)}")
        return {container.labels[MACHINE_LABEL]: container for container in found}

    def addresses(
        self, draft: Draft, found: Mapping[str, Container] | None = None
    ) -> Mapping[str, IPv4Address]:
        """Give each machine's address: the one it has, else the one it will get.

        Args:
            found: machine -> its container, if the caller knows them already; None: ask the engine.
        """
        if found is None:
            found = self._containers(draft)
        known = {
            name: IPv4Address(container.labels[ADDRESS_LABEL]) for name, container in found.items()
        }
        return assign(self._subnet(draft), [host.name for host in draft.hosts], known)

    def _subnet(self, draft: Draft) -> IPv4Network:
        return lab_network.subnet_of(lab_id(draft), self._engine.networks(), self._network)

    def _refuse_other_image(self, draft: Draft, found: Mapping[str, Container]) -> None:
        for name, container in found.items():
            if (made_of := container.labels[IMAGE_LABEL]) != draft.lab.image:
                raise MachinesError(
                    f"{name} was made from the image {made_of!r}, "
                    f"but the inventory has {draft.lab.image!r}",
                    hint=f"remove the machines first: {clusterctl('machines', 'down', draft.inventory)}",
                )

    def _ensure_keys(self, draft: Draft) -> set[Path]:
        """Make the missing keys; return their paths."""
        paths = {self.client_key(draft), *(self.host_key(draft, h.name) for h in draft.hosts)}
        absent = {path for path in paths if not path.exists()}
        for path in absent:
            path.parent.mkdir(parents=True, exist_ok=True)
            ssh_keys.write(path, ssh_keys.new_key())
        return absent

    def _write_resolv_conf(self, draft: Draft) -> None:
        # Keep the inode: running machines have this file mounted.
        (self.directory(draft) / "resolv.conf").write_text(resolv_conf(*read_resolvers()))

    def _destroy(self, draft: Draft, progress: Progress) -> None:
        identity = lab_id(draft)
        containers = self._engine.containers(f"{LAB_LABEL}={identity}")
        with progress.phase("machines", "remove the lab's machines", (identity,)):
            progress.update(identity, f"{len(containers)} containers")
            self._engine.remove_containers(containers)
            volumes = volumes_of(identity, self._engine.volumes())
            if volumes:
                self._engine.run("volume", "rm", *volumes)
            labs = {n.name: n for n in self._engine.networks() if LAB_LABEL in n.labels}
            if network := labs.pop(identity, None):
                self._engine.run("network", "rm", identity)
                before = network.labels.get(INOTIFY_LABEL)
                if before and not labs:
                    inotify.set_back(int(before))
            shutil.rmtree(self.directory(draft), ignore_errors=True)
            progress.done(identity)

    def _await_login(
        self, draft: Draft, name: str, address: IPv4Address, cancelled: threading.Event
    ) -> None:
        """Return as soon as the machine's user can log in.

        It is not enough that sshd answers: while a machine boots, PAM refuses all users but root.

        Raises:
            MachinesError: no login within SSH_TIMEOUT seconds, or sshd has another host key.
        """
        host_key = ssh_keys.public(self.host_key(draft, name)) or ""
        key = paramiko.Ed25519Key.from_private_key_file(str(self.client_key(draft)))
        deadline = time.monotonic() + SSH_TIMEOUT
        while True:
            try:
                return ssh_keys.log_in(address, host_key, USERS[draft.lab.image], key)
            except (OSError, EOFError, paramiko.SSHException) as error:
                if time.monotonic() > deadline:
                    container = self.container(draft, name)
                    look = shell(
                        self._engine.name, "exec", "-it", container, "systemctl", "--failed"
                    )
                    raise MachinesError(
                        f"no SSH login on {address} after {SSH_TIMEOUT:.0f} s: {error}",
                        hint=f"look inside: {look}",
                    ) from None
                if cancelled.wait(0.1):
                    raise MachinesError("interrupted") from None

    def _put_keys(self, draft: Draft, name: str) -> None:
        client = ssh_keys.public(self.client_key(draft))
        host_key = self.host_key(draft, name)
        user = USERS[draft.lab.image]
        files = {
            "etc/ssh/ssh_host_ed25519_key": (host_key.read_bytes(), 0o600),
            "etc/ssh/ssh_host_ed25519_key.pub": (f"{ssh_keys.public(host_key)}\n".encode(), 0o644),
            f"{image.AUTHORIZED_KEYS[1:]}/{user}": (f"{client}\n".encode(), 0o644),
        }
        self._engine.put(self.container(draft, name), archive(files))

    @contextmanager
    def _alone(self, progress: Progress) -> Iterator[None]:
        """Hold a lock: only one process at a time builds an image or looks for a free network."""
        private_file.directory(self._labs)
        with (self._labs / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.note("waiting: another clusterctl prepares a lab")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _state(container: Container | None) -> str:
    if container is None:
        return "absent"
    return "running" if container.state == "running" else "stopped"
