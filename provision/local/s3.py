"""What operators of a cluster share, in S3: `"state": "s3://BUCKET/PREFIX"`.

    PREFIX/NAME/pki.age   the cluster's keys, sealed on this computer; none lie open here
    PREFIX/NAME/lock      who works on the cluster; there as long as somebody does

Both are written under a condition (`If-None-Match`, `If-Match`): of two who write at once S3 takes
one. How long a holder has been silent is told by S3's clock alone. The lock on the masters is taken
all the same: this one is for the time when there are no machines yet.
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
from provision.model.errors import MachinesError, RefusedError
from provision.model.holder import BEAT, LIFE, Holder
from provision.pki.trust import Trust

KEYS, LOCK = "pki.age", "lock"
_LOST = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "404"}


@dataclass(frozen=True)
class _Found:
    """The lock as it lies there. `id`: of the run that wrote it."""

    etag: str
    id: str
    holder: Holder


class SharedCache(Cache):
    """A cache whose keys are in S3, and with them a lock. What is not secret stays here."""

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
        """The trust that the operators share.

        Raises:
            RefusedError: nothing here says how it is sealed.
            TrustError: it does not open, or does not fit together.
            MachinesError: S3 refuses.
        """
        opener = self._seal()
        answer = self._read(KEYS)
        return (
            Trust.from_files(unpacked(opener.open(answer["Body"])), datetime.now(UTC))
            if answer
            else None
        )

    def keep(self, trust: Trust) -> None:
        self._write(KEYS, self._seal().close(packed(trust)))

    def first(self, trust: Trust) -> Trust:
        """Keep a new cluster's trust; or give back another operator's, who was faster."""
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
        """Keep other operators out, who share this state, for as long as the block runs.

        If somebody takes the lock away, the block is stopped by the RefusedError.

        Raises:
            RefusedError: somebody else works on the cluster.
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
        """Whether it lives, as far as one can tell from here."""
        return holder.silent < self._life and not gone(holder)

    def free(self) -> None:
        """Take the lock away from whoever has it; a run of theirs stops at its next beat."""
        self._call("delete_object", LOCK)

    def taken(self, holder: Holder) -> RefusedError:
        return taken(holder, self._inventory)

    def look(self) -> _Found | None:
        """The lock, if somebody has it."""
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
        """Write the lock; its ETag, and when, by S3's clock."""
        answer = self._write(LOCK, json.dumps(content).encode(), **condition)
        return answer["ETag"], _now(answer)

    def remove_lock(self, etag: str) -> None:
        self._call("delete_object", LOCK, IfMatch=etag)

    def _seal(self) -> seal.Seal:
        wanted = seal.wanted()
        if wanted is None:
            message = f"the keys in {self.where} are sealed, and nothing here says with what"
            hint = f"set {seal.PASSPHRASE_FILE} or {seal.AGE_IDENTITY}, the same for all operators"
            raise RefusedError(message, hint=hint)
        return wanted

    def _read(self, name: str) -> Any | None:  # noqa: ANN401  AWS'
        """An object, its content whole under `Body`; None: there is none."""
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
                hint = f"make it, versioned and closed to the public: aws s3 mb s3://{self._bucket}"
                raise MachinesError(message, hint=hint) from None
            raise in_words(error, f"the state in s3://{self._bucket}/{key}", action) from error


class _OvertakenError(Exception):
    """The condition of a write does not hold: somebody else was faster."""


class _AbsentError(Exception):
    """There is no such object."""


class _Run:
    """One run's hold on the lock.

    Attributes:
        ended: set it, and the beats end.
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
            if found is None:  # it was given back in this moment
                condition = {"IfNoneMatch": "*"}
            elif found.id == self._id:  # the answer to our own first try was lost
                self._etag = found.etag
                return
            elif self._cache.counts(found.holder):
                raise self._cache.taken(found.holder)
            else:
                condition = {"IfMatch": found.etag}

    def keep(self, main: gevent.Greenlet) -> None:
        """Give a sign of life again and again; stop `main` if the lock is no longer ours."""
        while not self.ended.wait(self._beat):
            try:
                self._write({"IfMatch": self._etag})
            except MachinesError:
                continue  # S3 cannot be reached: the next beat may be heard
            except (_OvertakenError, _AbsentError):
                with suppress(MachinesError):
                    found = self._cache.look()
                    if found is None or found.id != self._id:
                        gevent.kill(main, lost(self._cache.where))
                        return
                    self._etag = found.etag

    def give_back(self) -> None:
        # What is not given back falls by itself; who has taken it away has it.
        with suppress(MachinesError, _OvertakenError, _AbsentError):
            self._cache.remove_lock(self._etag)

    def _write(self, condition: Mapping[str, str]) -> None:
        # Each is another text, and so another ETag: who wants to take over sees that we live.
        self._beats += 1
        content = {"id": self._id, "beat": self._beats, "holder": asdict(self._me)}
        self._etag, now = self._cache.write_lock(content, **condition)
        self._me = replace(self._me, began=self._me.began or now)


def _now(answer: Mapping[str, Any]) -> int:
    """When S3 answered, by its own clock."""
    return int(parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp())
