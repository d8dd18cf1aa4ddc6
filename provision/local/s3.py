"""State that operators of a cluster share in S3: `"state": "s3://BUCKET/PREFIX"`.

    PREFIX/NAME/pki.age   the cluster's keys, encrypted on this computer
    PREFIX/NAME/lock      the operator who works on the cluster; it exists during a run

Both are written under a condition (`If-None-Match`, `If-Match`): if two runs write at once, S3
accepts one. S3's clock alone says how long a holder has been silent. A run also takes the lock on
the masters: the lock here is for the time before machines exist.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import gevent
from botocore.exceptions import BotoCoreError, ClientError
from gevent.event import Event

from provision.aws.account import Account, code_of, in_words
from provision.local import seal
from provision.local.cache import Cache, packed, unpacked
from provision.local.operators import gone, lost, taken
from provision.model.cluster import Inventory
from provision.model.commands import shell
from provision.model.errors import MachinesError, RefusedError
from provision.model.holder import BEAT, LIFE, Holder
from provision.pki.trust import Trust
from provision.pki.trust_files import read_trust

KEYS, LOCK = "pki.age", "lock"
_LOST = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "404"}


@dataclass(frozen=True)
class _Found:
    """The lock as read from S3. `id`: of the run that wrote it."""

    etag: str
    id: str
    holder: Holder


class SharedCache(Cache):
    """A cache with its keys and a lock in S3. Files that are not secret stay on this computer."""

    def __init__(self, given: Inventory, *, beat: float = BEAT, life: int = LIFE) -> None:
        super().__init__(given.name, given.inventory)
        self.where = f"{given.state}/{given.name}"
        self._bucket, _, folder = self.where.removeprefix("s3://").partition("/")
        self._folder = folder
        self._name, self._inventory = given.name, given.inventory
        self._beat, self._life = beat, life
        region = given.ec2.region or boto3.session.Session().region_name or "us-east-1"
        self._account = Account(region, given.ec2.endpoint, ("s3",))

    @property
    def pki(self) -> str:
        return f"{self.where}/{KEYS}"

    def trust(self) -> Trust | None:
        """Read the trust that the operators share.

        Raises:
            RefusedError: the environment names no key to open it.
            TrustError: the key does not open it, or its files do not fit together.
            MachinesError: S3 refuses.
        """
        opener = self._seal()
        answer = self._read(KEYS)
        return (
            read_trust(unpacked(opener.open(answer["Body"])), datetime.now(UTC)) if answer else None
        )

    def keep(self, trust: Trust) -> None:
        self._write(KEYS, self._seal().close(packed(trust)))

    def first(self, trust: Trust) -> Trust:
        """Write a new cluster's trust. If another operator was faster, give the other trust."""
        try:
            self._write(KEYS, self._seal().close(packed(trust)), IfNoneMatch="*")
        except _OvertakenError:
            return self.trust() or trust
        return trust

    def forget(self) -> None:
        super().forget()
        self._call("delete_object", KEYS)

    @contextmanager
    def hold(self, me: Holder) -> Iterator[None]:
        """Hold the lock while the block runs, so that operators with this state wait.

        A RefusedError stops the block if an operator removes the lock.

        Raises:
            RefusedError: another operator works on the cluster.
            MachinesError: S3 refuses.
        """
        run = _Run(self, me, self._beat, self._life)
        run.take()
        keeper = gevent.spawn(run.keep, gevent.getcurrent())
        try:
            yield
        finally:
            run.ended.set()
            keeper.join()
            run.give_back()

    def holder(self) -> Holder | None:
        found = self.look()
        return found.holder if found and self.counts(found.holder) else None

    def counts(self, holder: Holder) -> bool:
        """Tell whether the holder's run counts as alive, as far as this computer can know."""
        return holder.silent < self._life and not gone(holder)

    def free(self) -> None:
        """Remove the lock. The run that holds it stops at its next beat."""
        self._call("delete_object", LOCK)

    def taken(self, holder: Holder) -> RefusedError:
        return taken(holder, self._inventory)

    def look(self) -> _Found | None:
        """Read the lock; None: no run holds it."""
        answer = self._read(LOCK)
        if answer is None:
            return None
        content = json.loads(answer["Body"])
        heard, now = int(answer["LastModified"].timestamp()), _now(answer)
        holder = Holder(**content["holder"])
        began = holder.began or heard
        holder = replace(holder, began=began, since=now - began, silent=now - heard)
        return _Found(answer["ETag"], content["id"], holder)

    def write_lock(self, content: Mapping[str, object], **condition: str) -> tuple[str, int]:
        """Write the lock. Gives its ETag and the time by S3's clock."""
        answer = self._write(LOCK, json.dumps(content).encode(), **condition)
        return answer["ETag"], _now(answer)

    def remove_lock(self, etag: str) -> None:
        self._call("delete_object", LOCK, IfMatch=etag)

    def _seal(self) -> seal.Seal:
        wanted = seal.wanted()
        if wanted is None:
            message = f"the keys in {self.where} are encrypted, and the environment names no key"
            hint = f"set {seal.PASSPHRASE_FILE} or {seal.AGE_IDENTITY}, the same for all operators"
            raise RefusedError(message, hint=hint)
        return wanted

    def _read(self, name: str) -> Any | None:  # noqa: ANN401  AWS'
        """Read an object, with its content under `Body`; None: it does not exist."""
        try:
            answer = self._call("get_object", name)
        except _AbsentError:
            return None
        return {**answer, "Body": answer["Body"].read()}

    def _write(self, name: str, content: bytes, **condition: str) -> Any:  # noqa: ANN401  AWS'
        return self._call("put_object", name, Body=content, **condition)

    def _call(self, action: str, name: str, **request: object) -> Any:  # noqa: ANN401  AWS'
        key = f"{self._folder}/{name}"
        try:
            return self._account.call("s3", action, Bucket=self._bucket, Key=key, **request)
        except (ClientError, BotoCoreError) as error:
            code = code_of(error)
            if code in _LOST:
                raise _OvertakenError(code) from None
            if code in _ABSENT:
                raise _AbsentError(code) from None
            if code == "NoSuchBucket":
                message = f"there is no bucket {self._bucket} for the state of {self._name}"
                hint = f"make it, with versions and without public access: {shell('aws', 's3', 'mb', f's3://{self._bucket}')}"
                raise MachinesError(message, hint=hint) from None
            raise in_words(error, f"the state in s3://{self._bucket}/{key}", action) from error


class _OvertakenError(Exception):
    """The condition of a write is false: another run was faster."""


class _AbsentError(Exception):
    """The object does not exist."""


class _Run:
    """One run's hold on the lock.

    Attributes:
        ended: set it to end the beats.
    """

    def __init__(self, cache: SharedCache, me: Holder, beat: float, life: int) -> None:
        self.ended = Event()
        self._cache, self._me, self._beat, self._life = cache, me, beat, life
        self._id = uuid.uuid4().hex
        self._etag = ""
        self._beats = 0

    def take(self) -> None:
        condition = {"IfNoneMatch": "*"}
        while True:
            with suppress(_OvertakenError, _AbsentError):
                self._write(condition)
                return
            found = self._cache.look()
            if found is None:  # it was released at this moment
                condition = {"IfNoneMatch": "*"}
            elif found.id == self._id:  # this run wrote the lock, but the answer was lost
                self._etag = found.etag
                return
            elif self._cache.counts(found.holder):
                raise self._cache.taken(found.holder)
            else:
                condition = {"IfMatch": found.etag}

    def keep(self, main: gevent.Greenlet) -> None:
        """Write a beat again and again; stop `main` if this run no longer holds the lock."""
        while not self.ended.wait(self._beat):
            try:
                self._write({"IfMatch": self._etag})
            except MachinesError:
                continue  # S3 cannot be reached: the next beat may arrive
            except (_OvertakenError, _AbsentError):
                with suppress(MachinesError):
                    found = self._cache.look()
                    if found is None or found.id != self._id:
                        gevent.kill(main, lost(self._cache.where))
                        return
                    self._etag = found.etag

    def give_back(self) -> None:
        # A lock that is not removed expires. Another run may hold it already.
        with suppress(MachinesError, _OvertakenError, _AbsentError):
            self._cache.remove_lock(self._etag)

    def _write(self, condition: Mapping[str, str]) -> None:
        # Each beat has another text, and so another ETag: other runs see that this run is alive.
        self._beats += 1
        content = {"id": self._id, "beat": self._beats, "holder": asdict(self._me)}
        self._etag, now = self._cache.write_lock(content, **condition)
        self._me = replace(self._me, began=self._me.began or now)


def _now(answer: Mapping[str, Any]) -> int:
    """Give the time of an answer, by S3's clock."""
    return int(parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp())
