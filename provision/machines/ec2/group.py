"""Workers of the Auto Scaling group: their files in the bucket, and their number.

In the bucket, `join/current` has the SHA-256 of the program that the workers run. `join/SHA256` is
that program, and `join/PIN.zst` are the artifacts that it names. While a worker has to join, the
masters put a token into `join/token`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from provision.aws.account import Account, code_of, in_words
from provision.inventory import Draft
from provision.local.progress import Progress
from provision.machines.ec2 import keys
from provision.machines.ec2.instances import size_of
from provision.machines.ec2.model import Seen
from provision.machines.ec2.names import names_of
from provision.model.commands import clusterctl
from provision.model.errors import RefusedError

AT_ONCE = 4
MOST = 1000  # the same limit as the inventory's `group`
_CURRENT = "join/current"


@dataclass(frozen=True)
class Store:
    """The part of the bucket for machines that join by themselves."""

    account: Account
    bucket: str
    owner: str

    def offered(self) -> str:
        """Read the SHA-256 of the current program; empty: there is no program.

        Raises:
            MachinesError: the bucket cannot be read.
        """
        try:
            answer = self._call("get_object", Key=_CURRENT)
            return str(answer["Body"].read().decode().strip())
        except (ClientError, BotoCoreError) as error:
            if code_of(error) in {"NoSuchKey", "NoSuchBucket", "404"}:
                return ""
            raise in_words(error, self.bucket, "get_object") from error

    def offer(self, program: bytes, artifacts: Mapping[str, Path], progress: Progress) -> None:
        """Upload the program and the missing artifacts, then make this program the current one.

        Raises:
            MachinesError: the bucket cannot be written.
        """
        try:
            there = self._there()
            lacking = {f"join/{pin}.zst": path for pin, path in artifacts.items()}
            lacking = {key: path for key, path in lacking.items() if key not in there}

            def put(key: str) -> None:
                progress.note(f"upload {key}, {lacking[key].stat().st_size / 1e6:.0f} MB")
                with lacking[key].open("rb") as content:
                    self._call("put_object", Key=key, Body=content)

            with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
                list(pool.map(put, lacking))
            hash_ = hashlib.sha256(program).hexdigest()
            self._call("put_object", Key=f"join/{hash_}", Body=program)
            self._call("put_object", Key=_CURRENT, Body=f"{hash_}\n".encode())
        except (ClientError, BotoCoreError) as error:
            action = getattr(error, "operation_name", "put_object")
            raise in_words(error, self.bucket, action) from error

    def _there(self) -> frozenset[str]:
        found = self.account.pages(
            "s3", "list_objects_v2", "Contents", **self._mine, Prefix="join/"
        )
        return frozenset(thing["Key"] for thing in found)

    def _call(self, action: str, **request: object) -> Any:  # noqa: ANN401  AWS'
        return self.account.call("s3", action, **self._mine, **request)

    @property
    def _mine(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "ExpectedBucketOwner": self.owner}


def refuse_size(draft: Draft, workers: int) -> None:
    """Check that the inventory has a group, and that the size is allowed. Makes no call to AWS.

    Raises:
        RefusedError: the inventory has no group, or the size is not allowed.
    """
    if not draft.ec2.group:
        message = f"{draft.inventory} has no Auto Scaling group"
        raise RefusedError(
            message,
            hint='make one, with two workers: "group": 2 in its "ec2"; then '
            f"{clusterctl('up', draft.inventory)}",
        )
    if not 0 <= workers <= MOST:
        message = f"a group has 0 to {MOST} workers, not {workers}"
        raise RefusedError(
            message,
            hint=f"0 to {MOST}: each worker needs a route, and a VPC's table has 50 to 1000",
        )


def scale(account: Account, draft: Draft, seen: Seen, workers: int) -> int:
    """Set the group's size; returns the size before.

    Raises:
        RefusedError: the group does not exist yet.
        MachinesError: AWS refuses.
    """
    if keys.GROUP not in seen.ids:
        message = f"the group of {draft.name} does not exist yet"
        raise RefusedError(message, hint=clusterctl("up", draft.inventory))
    was = int(seen.settings[keys.GROUP_SIZE])
    if was != workers:
        request = {"AutoScalingGroupName": names_of(draft).group, **size_of(workers)}
        try:
            account.call("autoscaling", "update_auto_scaling_group", **request)
        except (ClientError, BotoCoreError) as error:
            raise in_words(error, "group", "update_auto_scaling_group") from error
    return was
