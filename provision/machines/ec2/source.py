"""The machine source `ec2`."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs
from botocore.exceptions import BotoCoreError, ClientError

from provision.aws.account import Account, in_words
from provision.inventory import Draft
from provision.inventory.amis import image_of
from provision.local import private_file
from provision.local.progress import Progress
from provision.machines import MachineStatus, Planned
from provision.machines.ec2 import checks, prices
from provision.machines.ec2.apply import apply
from provision.machines.ec2.desired import lacking, steps
from provision.machines.ec2.group import Store, refuse_size, scale
from provision.machines.ec2.keys import Key, Kind
from provision.machines.ec2.model import HostKey, Seen, Step, World
from provision.machines.ec2.names import names_of
from provision.machines.ec2.placing import addresses, zones_of
from provision.machines.ec2.removal import remove, remove_machines
from provision.machines.ec2.seen import look
from provision.machines.ssh_keys import new_key
from provision.model import paths
from provision.model.cluster import Role, Ssh
from provision.model.errors import MachinesError
from provision.model.located import Located

LOGIN_TIMEOUT = 300.0  # seconds; from the call to the first login, 30 seconds are usual
_MAKING = (Kind.INSTANCE, Kind.START)
HOST_KEY, PLACE = ".host_key", ".place"  # suffixes of files for machines that do not exist yet
SSM = "aws ssm start-session --region {region} --target %h --document-name AWS-StartSSHSession"
_BY_SSH = "check that `ssh_from` has this computer's address."
_BY_SSM = "check that `aws ssm describe-instance-information` lists the instance."


class Ec2:
    """Makes, finds and removes a cluster's machines on EC2, and the things around them."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._seen: Seen | None = None
        self._number = ""
        self._arch = ""  # of the group's workers

    def locate(self, draft: Draft) -> Mapping[str, Located]:
        """Give the machines' addresses; before `create`, their planned addresses."""
        seen = self._look(draft)
        return {
            name: Located(address, self._ssh(draft, name, seen, address))
            for name, address in addresses(draft, seen).items()
        }

    def vip(self, draft: Draft) -> IPv4Address | None:  # noqa: ARG002
        """Give None: a VPC does not carry a virtual address."""
        return None

    def api_name(self, draft: Draft) -> str | None:
        return self._look(draft).load_balancer or None

    def bucket(self, draft: Draft) -> str:
        self._account(draft)
        return names_of(draft, self._number).bucket

    def group_arch(self, draft: Draft) -> str:
        if draft.ec2.group and not self._arch:
            self._arch = checks.worker_arch(self._account(draft), draft)
        return self._arch if draft.ec2.group else ""

    def offered(self, draft: Draft) -> str:
        return Store(self._account(draft), self.bucket(draft), self._number).offered()

    def offer(
        self, draft: Draft, program: bytes, artifacts: Mapping[str, Path], progress: Progress
    ) -> None:
        store = Store(self._account(draft), self.bucket(draft), self._number)
        store.offer(program, artifacts, progress)

    def scale(self, draft: Draft, workers: int) -> int:
        refuse_size(draft, workers)
        self._seen = None
        seen = self._look(draft)
        checks.refuse(draft, checks.foreign(draft, seen))
        return scale(self._account(draft), draft, seen, workers)

    def missing(self, draft: Draft) -> tuple[str, ...]:
        """Give names of machines to make or start, and of other things to make or correct."""
        wanted = (step.key for step in self._steps(draft))
        return tuple(key.name if key.kind in _MAKING else str(key) for key in wanted)

    def planned(self, draft: Draft) -> tuple[Planned, ...]:
        return prices.planned(self._steps(draft), draft.ec2.region)

    def prices(self, draft: Draft) -> str:
        return prices.basis(draft.ec2.region)

    def status(self, draft: Draft) -> tuple[MachineStatus, ...]:
        seen = self._look(draft)
        where = self.locate(draft)
        return tuple(
            MachineStatus(
                host.name,
                _state(seen, host.name),
                str(where[host.name].address),
                f"{where[host.name].ssh.user}@{where[host.name].ssh.hostname}",
            )
            for host in draft.hosts
        )

    def create(
        self, draft: Draft, progress: Progress, names: Collection[str] | None = None
    ) -> None:
        """Make the missing things; return when SSH answers on all machines.

        Raises:
            PreflightError: the inventory or the account has a fault.
            MachinesError: AWS refuses, or a machine does not come up.
        """
        self._seen = None  # another operator may have made them since the confirmation
        self.make(draft, progress, names)
        self._await_logins(draft, progress, names)
        made = [h.name for h in draft.hosts if names is None or h.name in names]
        # The machines have these keys now; this computer keeps no copy.
        self._forget(draft, made, HOST_KEY, PLACE)

    def make(self, draft: Draft, progress: Progress, names: Collection[str] | None = None) -> None:
        """Ask AWS to make the missing things. Does not wait until machines can be used.

        Raises:
            PreflightError, MachinesError: as `create`.
        """
        wanted = self._steps(draft, names)
        account = self._account(draft)
        seen = self._look(draft)
        checks.refuse(draft, checks.rights(account, wanted, seen))
        if wanted:
            subjects = tuple(str(step.key) for step in wanted)
            self._seen = None  # from here on it changes
            with progress.phase("ec2", f"{len(wanted)} calls to AWS", subjects):
                apply(account, wanted, seen.ids, progress, partial(self._spent, draft))

    def remove(self, draft: Draft, names: Collection[str], progress: Progress) -> bool:
        """Terminate instances and remove their volumes.

        The next instances get the same zones and addresses. Those are written to this computer,
        because the account forgets them with the instances.

        Raises:
            PreflightError: the instances belong to another cluster.
            MachinesError: AWS refuses.
        """
        self._seen = None
        seen = self._look(draft)
        checks.refuse(draft, checks.foreign(draft, seen))
        zones, where = zones_of(draft, seen), addresses(draft, seen)
        for name in names:
            place = f"{zones[name]} {where[name]}\n".encode()
            private_file.write(self._directory(draft) / f"{name}{PLACE}", place)
        self._seen = None  # from here on it changes
        try:
            with progress.phase("ec2", "remove machines", tuple(names)):
                remove_machines(self._account(draft), seen, names)
                self._forget(draft, names, HOST_KEY)
        except (ClientError, BotoCoreError) as error:
            raise in_words(error, draft.name, getattr(error, "operation_name", "")) from error
        return True

    def destroy(self, draft: Draft, progress: Progress) -> None:
        """Remove everything that `create` made for this cluster, and its bucket; nothing else.

        Raises:
            PreflightError: a thing with this cluster's name belongs to another cluster or owner.
            MachinesError: a thing blocks a removal; the message names it.
        """
        account = self._account(draft)
        self._seen = None
        seen = self._look(draft)
        checks.refuse(draft, checks.foreign(draft, seen))
        self._seen = None  # from here on it changes
        names = names_of(draft, self._number)
        try:
            with progress.phase(
                "ec2", "remove the cluster's things in AWS", tuple(map(str, seen.ids))
            ):
                remove(account, names, seen, progress, keep_vpc=draft.ec2.vpc is not None)
        except (ClientError, BotoCoreError) as error:
            raise in_words(error, draft.name, getattr(error, "operation_name", "")) from error
        for file in self._directory(draft).glob("*"):
            file.unlink()
        self._directory(draft).rmdir()

    def _account(self, draft: Draft) -> Account:
        region = draft.ec2.region
        if region not in self._accounts:
            checks.refuse(draft, checks.region(draft))
            account = Account(region, draft.ec2.endpoint)
            try:
                self._number = account.call("sts", "get_caller_identity")["Account"]
            except (ClientError, BotoCoreError) as error:
                raise in_words(error, "AWS", "get_caller_identity") from error
            self._accounts[region] = account
        return self._accounts[region]

    def _look(self, draft: Draft) -> Seen:
        """Read the account's things. The result is kept until clusterctl changes them."""
        if self._seen is None:
            account = self._account(draft)
            seen = look(account, draft, names_of(draft, self._number))
            self._seen = replace(seen, left=self._left(draft))
        return self._seen

    def _left(self, draft: Draft) -> dict[str, tuple[str, str]]:
        """Read zone and address of machines that were removed and not made again."""
        left = {}
        for file in self._directory(draft).glob(f"*{PLACE}"):
            zone, address = file.read_text().split()
            left[file.name.removesuffix(PLACE)] = (zone, address)
        return left

    def _steps(self, draft: Draft, names: Collection[str] | None = None) -> tuple[Step, ...]:
        account = self._account(draft)
        seen = self._look(draft)
        world, findings = checks.world(account, draft, self._number)
        findings += [*checks.foreign(draft, seen), *checks.moved(draft, seen)]
        checks.refuse(draft, findings)
        world, keys = self._with_key(draft, world), self._host_keys(draft)
        return lacking(steps(draft, world, seen, keys, names), seen)

    def _with_key(self, draft: Draft, world: World) -> World:
        if draft.ec2.key_pair:
            return world
        private = self._client_key(draft)
        if not private.exists():
            key = new_key()
            private_file.write(private.with_suffix(".pub"), f"{key.public}\n".encode())
            private_file.write(private, key.private)
        return replace(world, public_key=private.with_suffix(".pub").read_text().strip())

    def _host_keys(self, draft: Draft) -> dict[str, HostKey]:
        """Make host keys of machines that do not exist yet.

        They are kept until the machines exist: a run after a crash must ask for the same machine.
        """
        keys = {}
        there = self._look(draft).instances
        for name in (host.name for host in draft.hosts if host.name not in there):
            file = self._directory(draft) / f"{name}{HOST_KEY}"
            if not file.exists():
                key = new_key()
                private_file.write(file, key.private + b"\n" + key.public.encode())
            private, _, public = file.read_text().strip().rpartition("\n")
            keys[name] = HostKey(private, public)
        return keys

    def _spent(self, draft: Draft, key: Key) -> None:
        """Use another ClientToken for a machine or its volume: a new host key gives one."""
        self._forget(draft, (key.name,), HOST_KEY)

    def _forget(self, draft: Draft, names: Iterable[str], *kinds: str) -> None:
        for name in names:
            for kind in kinds:
                (self._directory(draft) / f"{name}{kind}").unlink(missing_ok=True)

    def _directory(self, draft: Draft) -> Path:
        """Give the directory of this cluster's keys on this computer, 0700."""
        ec2 = platformdirs.user_state_path("clusterctl") / "ec2"
        path = ec2 / f"{self._number}-{draft.ec2.region}-{draft.name}"
        private_file.directory(path)
        return path

    def _client_key(self, draft: Draft) -> Path:
        return self._directory(draft) / "id_ed25519"

    def _ssh(self, draft: Draft, name: str, seen: Seen, address: IPv4Address) -> Ssh:
        host = next(host for host in draft.hosts if host.name == name)
        instance = seen.instances.get(name)
        image = image_of(draft.ec2.image)
        values: dict[str, object] = {
            "user": image.user if image else "",
            "hostname": str(address),
            **host.ssh,
            "sudo": True,
            "host_key": (instance.host_key or None) if instance else None,
        }
        if draft.ec2.ssh == "public" and instance and instance.public:
            values["hostname"] = instance.public
        elif draft.ec2.ssh == "ssm":
            values["hostname"] = instance.id if instance else name
            values["config_file"] = self._ssm_config(draft)
        if draft.ec2.key_pair is None:
            values.setdefault("key", self._client_key(draft))
        if values["user"] == "root":
            values["sudo"] = False
        return Ssh.model_validate(values)

    def _ssm_config(self, draft: Draft) -> Path:
        path = self._directory(draft) / "ssh_config"
        command = SSM.format(region=draft.ec2.region)
        private_file.write(
            path, f"Host i-*\n  ProxyCommand {command} --parameters portNumber=%p\n".encode()
        )
        return path

    def _await_starts(self, draft: Draft, only: Collection[str] | None) -> None:
        """Wait until starting machines run: before that they have no public address.

        Raises:
            MachinesError: a machine does not start.
        """
        starting = [
            instance.id
            for name, instance in self._look(draft).instances.items()
            if instance.state != "running" and (only is None or name in only)
        ]
        if not starting:
            return
        try:
            self._account(draft).wait("instance_running", {"InstanceIds": starting})
        except (ClientError, BotoCoreError) as error:
            raise in_words(error, ", ".join(starting), "describe_instances") from error
        self._seen = None

    def _await_logins(self, draft: Draft, progress: Progress, only: Collection[str] | None) -> None:
        """Wait until SSH logs in to all machines and etcd's volumes are mounted.

        Raises:
            MachinesError: names every machine that is not ready.
        """
        self._await_starts(draft, only)
        located = self.locate(draft)
        names = tuple(h.name for h in draft.hosts if only is None or h.name in only)
        members = {host.name for host in draft.hosts if Role.ETCD in host.roles}
        cancelled = threading.Event()
        way = _BY_SSM if draft.ec2.ssh == "ssm" else _BY_SSH

        def one(name: str) -> MachinesError | None:
            progress.update(name, "wait for SSH")
            ssh, volume = located[name].ssh, name in members
            problem = _await_login(name, ssh, cancelled, volume=volume, way=way)
            progress.done(name, problem.message if problem else "", failed=bool(problem))
            return problem

        with (
            progress.phase("machines", "wait for the machines to start", names),
            ThreadPoolExecutor(max_workers=16) as pool,
        ):
            try:
                problems = [problem for problem in pool.map(one, names) if problem]
            except BaseException:
                cancelled.set()  # otherwise Ctrl-C would wait for all logins
                raise
        if problems:
            lines = "\n".join(f"  {problem.message}" for problem in problems)
            message = f"{len(problems)} of {len(names)} machines cannot be used:\n{lines}"
            raise MachinesError(message, hint=problems[0].hint)


def _await_login(
    name: str, ssh: Ssh, cancelled: threading.Event, *, volume: bool, way: str
) -> MachinesError | None:
    """Try to log in with OpenSSH until it works. Only the given host key is accepted.

    Args:
        way: hint for the operator if there is no connection.
    """
    check = f"mountpoint -q {paths.ETCD_DATA}" if volume else "true"
    deadline = time.monotonic() + LOGIN_TIMEOUT
    with TemporaryDirectory(prefix="clusterctl-") as folder:
        known = Path(folder) / "known_hosts"
        target = ssh.hostname if ssh.port == 22 else f"[{ssh.hostname}]:{ssh.port}"
        known.write_text(f"{target} {ssh.host_key}\n")
        argv = [
            "ssh", "-p", str(ssh.port), "-l", ssh.user, "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null",
            "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5",
            *(("-i", str(ssh.key), "-o", "IdentitiesOnly=yes") if ssh.key else ()),
            *(("-F", str(ssh.config_file)) if ssh.config_file else ()),
            ssh.hostname, check,
        ]  # fmt: skip
        while True:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return None
            last = (done.stderr.strip().splitlines() or ["its volume for etcd is not mounted"])[-1]
            if "REMOTE HOST IDENTIFICATION" in done.stderr or "verification failed" in last:
                return MachinesError(
                    f"{name} ({ssh.hostname}) shows another host key than the one that clusterctl gave it",
                    hint="another machine has this address, or its cloud-init did not run: "
                    "read the instance's system log in the AWS console",
                )
            if time.monotonic() > deadline:
                return MachinesError(
                    f"{name} ({ssh.hostname}): no SSH login after {LOGIN_TIMEOUT:.0f} s: {last}",
                    hint=f"{way} The instance's system log in the AWS console says whether it has "
                    "started",
                )
            if cancelled.wait(1):
                return MachinesError("interrupted")


def _state(seen: Seen, name: str) -> str:
    instance = seen.instances.get(name)
    if instance is None:
        return "absent"
    return "running" if instance.state in {"pending", "running"} else "stopped"
