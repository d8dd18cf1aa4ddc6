"""The machine source `ec2`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from provision.aws.account import Account, in_words
from provision.inventory import Draft
from provision.inventory.amis import image_of
from provision.local.progress import Progress
from provision.machines import MachineStatus, Planned
from provision.machines.ec2 import checks, prices
from provision.machines.ec2.apply import apply
from provision.machines.ec2.desired import lacking, steps
from provision.machines.ec2.group import Store, refuse_size, scale
from provision.machines.ec2.keys import Key, Kind
from provision.machines.ec2.local_files import LocalFiles
from provision.machines.ec2.logins import await_logins
from provision.machines.ec2.model import Seen, Step
from provision.machines.ec2.names import names_of
from provision.machines.ec2.placing import addresses, zones_of
from provision.machines.ec2.removal import remove, remove_machines
from provision.machines.ec2.seen import look
from provision.model.cluster import Ssh
from provision.model.located import Located

_MAKING = (Kind.INSTANCE, Kind.START)


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
        made = tuple(h.name for h in draft.hosts if names is None or h.name in names)
        self._await_starts(draft, made)
        await_logins(draft, self.locate(draft), made, progress)
        files = self._files(draft)
        # The machines have these keys now; this computer keeps no copy.
        files.forget_host_keys(made)
        files.forget_places(made)

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
            self._files(draft).keep_place(name, zones[name], str(where[name]))
        self._seen = None  # from here on it changes
        try:
            with progress.phase("ec2", "remove machines", tuple(names)):
                remove_machines(self._account(draft), seen, names)
                self._files(draft).forget_host_keys(names)
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
        self._files(draft).remove()

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
            self._seen = replace(seen, left=self._files(draft).places())
        return self._seen

    def _steps(self, draft: Draft, names: Collection[str] | None = None) -> tuple[Step, ...]:
        account = self._account(draft)
        seen = self._look(draft)
        world, findings = checks.world(account, draft, self._number)
        findings += [*checks.foreign(draft, seen), *checks.moved(draft, seen)]
        checks.refuse(draft, findings)
        files = self._files(draft)
        if not draft.ec2.key_pair:
            world = replace(world, public_key=files.public_key())
        keys = files.host_keys(h.name for h in draft.hosts if h.name not in seen.instances)
        return lacking(steps(draft, world, seen, keys, names), seen)

    def _spent(self, draft: Draft, key: Key) -> None:
        """Use another ClientToken for a machine or its volume: a new host key gives one."""
        self._files(draft).forget_host_keys((key.name,))

    def _files(self, draft: Draft) -> LocalFiles:
        return LocalFiles(self._number, draft.ec2.region, draft.name)

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
            values["config_file"] = self._files(draft).ssm_config()
        if draft.ec2.key_pair is None:
            values.setdefault("key", self._files(draft).client_key)
        if values["user"] == "root":
            values["sudo"] = False
        return Ssh.model_validate(values)

    def _await_starts(self, draft: Draft, names: Collection[str]) -> None:
        """Wait until starting machines run: before that they have no public address.

        Raises:
            MachinesError: a machine does not start.
        """
        starting = [
            instance.id
            for name, instance in self._look(draft).instances.items()
            if instance.state != "running" and name in names
        ]
        if not starting:
            return
        try:
            self._account(draft).wait("instance_running", {"InstanceIds": starting})
        except (ClientError, BotoCoreError) as error:
            raise in_words(error, ", ".join(starting), "describe_instances") from error
        self._seen = None


def _state(seen: Seen, name: str) -> str:
    instance = seen.instances.get(name)
    if instance is None:
        return "absent"
    return "running" if instance.state in {"pending", "running"} else "stopped"
